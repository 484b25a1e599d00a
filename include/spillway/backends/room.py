"""What a provider says of its room, when it said so, and how long the answer is kept."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta  # read from the dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from spillway.model import SaidEnd

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM_SECONDS: Final = 5.0
"""How old the count of a pool's own jobs may be."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeSlots:
    """How many more jobs of one node would start.

    Attributes:
        said_at: When the provider said so; None where no more is known than how many slots of the pool are taken.
    """

    count: int
    said_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a provider said, and when.

    Attributes:
        instances: How many more it would start; None when it says nothing of that.
        is_limit: Whether it would start no more than that, whoever has the machines, as a quota says.
        ends_at: When the reservation ends that a new job may be on; None when none does.
        detail: Why, for people.
    """

    instances: int | None
    asked_at: datetime
    is_limit: bool = False
    ends_at: datetime | None = None
    detail: str = ""

    def by_our_clock(self, now: datetime, ahead: timedelta) -> Room:
        """Return what a provider said just now, whose clock is `ahead` of ours."""
        end = None if self.ends_at is None else self.ends_at - ahead
        return replace(self, asked_at=now, ends_at=end)

    @property
    def end(self) -> SaidEnd | None:
        """When it ends and when the provider said so; None where it has no end."""
        return None if self.ends_at is None else SaidEnd(at=self.ends_at, said_at=self.asked_at)

    def within(self, free: int) -> FreeSlots:
        """Return how many of `free` slots the provider has room for: all of them when it says nothing of that.

        A limit that leaves some says nothing of room; one that is used up says that there is none.
        """
        if self.instances is None:
            return FreeSlots(count=free)
        count = max(min(free, self.instances), 0)
        says_nothing = self.is_limit and count > 0
        return FreeSlots(count=count, said_at=None if says_nothing else self.asked_at)


class Kept(Generic[T]):
    """An answer that several threads share, and that is asked for anew once it is some seconds old."""

    def __init__(self, ask: Callable[[], T], seconds: float = ROOM_SECONDS) -> None:
        self._ask = ask
        self._seconds = seconds
        self._answer: tuple[float, T] | None = None
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the answer; what asking raises is raised, and not kept."""
        with self._lock:
            if self._answer is None or time.monotonic() - self._answer[0] > self._seconds:
                self._answer = (time.monotonic(), self._ask())
            return self._answer[1]

    def forget(self) -> None:
        """Ask anew at the next question."""
        with self._lock:
            self._answer = None


class SlotCount:
    """Slots of a pool that are not taken, as far as the provider says that it has room for them.

    Args:
        slots: Of the pool.
        taken: Counts those that are taken, which is a call to the provider.
        told: Returns what the provider says of its room; it is not asked while every slot is taken.
    """

    def __init__(self, slots: int, taken: Callable[[], int], told: Callable[[], Room]) -> None:
        self._slots = slots
        self._taken = Kept(taken)
        self._told = told

    def free(self) -> FreeSlots:
        """Return the free ones, of which our own part is a few seconds old at most.

        Raises:
            BackendError: The provider could not be asked.
        """
        free = max(self._slots - self._taken.get(), 0)
        return self._told().within(free) if free else FreeSlots(count=0)

    def forget(self) -> None:
        """Count our own jobs anew at the next question: one was started or released."""
        self._taken.forget()
