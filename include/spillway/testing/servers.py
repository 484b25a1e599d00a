"""What the servers of tests have in common: a port of their own, and an error when they do not start."""

from __future__ import annotations

from typing import Final

from spillway.runtime.gang import ports

LOOPBACK: Final = "127.0.0.1"


class NotStartedError(RuntimeError):
    """A server did not start; the message ends with what it said last."""


def free_port(*, following: int = 0) -> int:
    """Return a TCP port of this machine that nobody listens on, nor on the `following` ones after it."""
    return ports.free_port(following=following)
