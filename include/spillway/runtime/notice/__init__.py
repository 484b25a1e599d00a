"""Notice that the capacity will be taken back: what it says, and a small watcher for each vendor's way of saying it."""

from spillway.runtime.notice.notice import Notice, NoticeSeen

__all__ = ["Notice", "NoticeSeen"]
