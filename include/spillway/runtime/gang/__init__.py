"""Several machines that start together, work as one and stop together."""

from spillway.runtime.gang.membership import Member, membership

__all__ = ["Member", "membership"]
