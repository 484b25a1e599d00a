"""Asking less often when the provider says that it is asked too much."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SHORTEST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 60.0


class Pace:
    """When the next call may be made: at once, until one is throttled; then after pauses that double.

    Pauses vary by half, so that processes which were throttled together do not come back together.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._pause = 0.0
        self._resume_at = 0.0
        self._lock = threading.Lock()

    def seconds_left(self) -> float:
        """Return how long to ask nothing; 0 when a call may be made."""
        with self._lock:
            return max(self._resume_at - self._clock(), 0.0)

    def throttled(self, wish: timedelta | None = None) -> timedelta:
        """Note that a call was throttled, and return how long to ask nothing; the provider may have said it."""
        told = wish.total_seconds() if wish is not None else 0.0
        with self._lock:
            self._pause = min(max(self._pause * 2, SHORTEST_SECONDS), LONGEST_SECONDS)
            pause = max(self._pause, min(told, LONGEST_SECONDS)) * (1 + self._jitter() / 2)
            self._resume_at = self._clock() + pause
        return timedelta(seconds=pause)

    def answered(self) -> None:
        """Note that a call went through."""
        with self._lock:
            self._pause = 0.0
