"""Prepare the next batches while a step is at work."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, TypeVar

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Prefetch(Generic[T]):
    """What `make` returns for each step, made up to `ahead` steps before it is asked for.

    Threads and no processes: reading waits for disks and networks, and copying lets go of the interpreter. As each step's
    batch follows from its number alone, what has been made ahead is no state: a resumed run makes it again.

    Args:
        make: Called with a step, in other threads when `ahead` is not 0.
        ahead: 0 for making each when it is asked for.
        stop: The step after the last.
    """

    def __init__(self, make: Callable[[int], T], *, ahead: int, stop: int) -> None:
        if ahead < 0:
            raise SpecError(f"prefetch is {ahead}: give 0 or more")
        self._make = make
        self._ahead = ahead
        self._stop = stop
        self._pool = ThreadPoolExecutor(ahead, "prefetch") if ahead else None
        self._next = 0
        self._made: deque[Future[T]] = deque()

    def take(self, step: int) -> T:
        """Return what `make` returns for `step`, and raise what it raises; steps are taken in order, save for jumps."""
        if self._pool is None:
            return self._make(step)
        if step + len(self._made) != self._next:  # the first, or the first after a jump
            self._made.clear()
            self._next = step
        while self._next < min(step + 1 + self._ahead, max(self._stop, step + 1)):
            self._made.append(self._pool.submit(self._make, self._next))
            self._next += 1
        return self._made.popleft().result()
