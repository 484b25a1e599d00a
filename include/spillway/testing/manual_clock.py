"""A clock that stands still until it is told otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A `spillway.runtime.clock.Clock`; called, it answers `now()`."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now

    def __call__(self) -> datetime:
        """Return the current instant."""
        return self._now

    def now(self) -> datetime:
        """Return the current instant."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds since the start of 2026."""
        return (self._now - START).total_seconds()

    def advance(self, duration: timedelta | float) -> None:
        """Let a duration pass; a number is in seconds."""
        self._now += duration if isinstance(duration, timedelta) else timedelta(seconds=duration)
