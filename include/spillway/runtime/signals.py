"""Notice of preemption: somebody wants the capacity back, and says so before taking it."""

from __future__ import annotations

import signal
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Notice:
    """Whether the capacity is about to be taken back; once received it stays."""

    received: bool = False

    def receive(self) -> None:
        """Take note that the capacity will be taken back."""
        self.received = True


def listen(notice: Notice) -> None:
    """Make SIGTERM a notice instead of the end; only from the main thread."""
    signal.signal(signal.SIGTERM, lambda _signum, _frame: notice.receive())
