"""What is known of the end of the capacity; written by signal handlers and watchers, read by the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spillway.runtime.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

_NEARER_SECONDS = 1.0
"""A source that goes on saying the same, to within this, says nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeSeen:
    """What one source says of the capacity.

    Attributes:
        source: Who says it, such as `aws` or `signal`.
        reason: What it says, for people.
        seconds_left: Time until the capacity is gone; None when the source does not say.
        is_advice: Whether the capacity may stay: it is wise to save soon, and to go on.
        is_at_once: Whether to leave now, however much time is left.
    """

    source: str
    reason: str
    seconds_left: float | None = None
    is_advice: bool = False
    is_at_once: bool = False


class Notice:
    """Whether the capacity is about to be taken back, and by when; once received it stays.

    Everything here is safe to call from a signal handler, which may interrupt any other call: hence no lock, and only
    single steps that Python does not interrupt.

    Attributes:
        grace_period: Time between notice and end where the source of the notice does not say; None or zero when nobody
            knows.
        advised_at: Monotonic time of the last advice to save soon; None without one.
    """

    def __init__(
        self, *, grace_period: timedelta | None = None, clock: Clock | None = None
    ) -> None:
        self.grace_period = grace_period
        self.advised_at: float | None = None
        self._clock = clock or SystemClock()
        self._received: list[tuple[float, NoticeSeen]] = []
        self._advice: list[NoticeSeen] = []
        self._wake: list[Callable[[], None]] = []

    @property
    def received(self) -> bool:
        """Whether the capacity will be taken back."""
        return bool(self._received)

    @property
    def received_at(self) -> float | None:
        """Monotonic time of the first notice."""
        return self._received[0][0] if self._received else None

    @property
    def deadline(self) -> float | None:
        """Monotonic time by which the capacity is gone; None without a notice, or when nobody knows."""
        ends = [at + left for at, seen in self._received if (left := self._left(seen)) is not None]
        return min(ends, default=None)

    @property
    def seconds_left(self) -> float | None:
        """Time until the deadline, zero when it is over; None without one."""
        deadline = self.deadline
        return None if deadline is None else max(deadline - self._clock.monotonic(), 0.0)

    @property
    def reason(self) -> str:
        """What the sources said, for people; empty when they said nothing."""
        told = dict.fromkeys(f"{seen.source}: {seen.reason}" for _, seen in self._received)
        return "; ".join(told)

    def receive(self, seen: NoticeSeen | None = None) -> None:
        """Take note that the capacity will be taken back."""
        seen = seen or NoticeSeen(source="notice", reason="the capacity will be taken back")
        now = self._clock.monotonic()
        if self._is_known(seen, now):
            return
        self._received.append((now, seen))
        for wake in self._wake:
            wake()

    def advise(self, seen: NoticeSeen) -> bool:
        """Take note that it is wise to save soon; return whether that is new."""
        if any((old.source, old.reason) == (seen.source, seen.reason) for old in self._advice):
            return False
        self._advice.append(seen)
        self.advised_at = self._clock.monotonic()
        return True

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Call `wake` at each notice, the past one included; it must be safe in a signal handler."""
        self._wake.append(wake)
        if self.received:
            wake()

    def _is_known(self, seen: NoticeSeen, now: float) -> bool:
        same = [
            (at, old)
            for at, old in self._received
            if (old.source, old.reason) == (seen.source, seen.reason)
        ]
        left, deadline = self._left(seen), self.deadline
        if not same or left is None or deadline is None:
            return bool(same)
        return now + left > deadline - _NEARER_SECONDS

    def _left(self, seen: NoticeSeen) -> float | None:
        if seen.seconds_left is not None:
            return seen.seconds_left
        return self.grace_period.total_seconds() or None if self.grace_period else None
