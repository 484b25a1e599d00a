"""The slots of one pool as the simulation goes: which are there, who holds them, and how much was used."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from spillway.model import PoolUsage, PrepaidHours
from spillway.placement.price import hours, next_month

if TYPE_CHECKING:
    from spillway.model import Pool

_MICRO = 6


class PoolSlots:
    """The slots of one pool.

    Attributes:
        pool: The pool, at its present list price.
        promised: How many slots jobs are on their way to that are leaving their place for this pool.
    """

    def __init__(self, pool: Pool, start: datetime, *, counted: bool) -> None:
        self.pool = pool
        self.promised = 0
        self._counted = counted
        self._holder: list[int | None] = [None] * pool.slots
        self._down: set[int] = set()
        self._free = set(range(pool.slots))
        self._slot_of: dict[int, int] = {}
        self._at = start
        self._next_month = next_month(start)
        self._month = timedelta(0)
        self._period = timedelta(0)

    @property
    def free(self) -> int:
        """How many slots could be leased now."""
        return len(self._free)

    @property
    def leased(self) -> int:
        """How many slots are leased now."""
        return len(self._slot_of)

    def take(self, job: int, now: datetime) -> None:
        """Lease a free slot to a job; there must be one."""
        self.advance(now)
        slot = min(self._free)
        self._free.remove(slot)
        self._holder[slot] = job
        self._slot_of[job] = slot

    def give_back(self, job: int, now: datetime) -> None:
        """End the job's lease."""
        self.advance(now)
        slot = self._slot_of.pop(job)
        self._holder[slot] = None
        if slot not in self._down:
            self._free.add(slot)

    def change(self, slot: int, *, is_up: bool) -> int | None:
        """Take a slot away, or bring it back; return the job that has lost its capacity by that.

        The job's lease is still to be given back.
        """
        if is_up:
            self._down.discard(slot)
            if self._holder[slot] is None:
                self._free.add(slot)
            return None
        self._down.add(slot)
        self._free.discard(slot)
        loser = self._holder[slot]
        if loser is None or not (self._counted and self._free):
            return loser
        # Slots that are only counted have no names: while another one is there, nobody loses anything.
        other = min(self._free)
        self._free.remove(other)
        self._holder[slot], self._holder[other] = None, loser
        self._slot_of[loser] = other
        return None

    def usage(self, now: datetime) -> PoolUsage:
        """Return how the pool is used, in the words of the ledger and to its precision."""
        self.advance(now)
        return PoolUsage(
            leased_slots=self.leased,
            promised_slots=self.promised,
            month_slot_hours=round(hours(self._month), _MICRO),
            period_slot_hours=round(hours(self._period), _MICRO)
            if isinstance(self.pool.commitment, PrepaidHours)
            else Decimal(0),
        )

    def advance(self, now: datetime) -> None:
        """Count what was leased since the last change."""
        while now >= self._next_month:
            self._count(self._next_month)
            self._month = timedelta(0)
            self._next_month = next_month(self._next_month)
        self._count(now)

    def _count(self, now: datetime) -> None:
        self._month += self.leased * (now - self._at)
        prepaid = self.pool.commitment
        if isinstance(prepaid, PrepaidHours):
            self._period += self.leased * max(now - max(self._at, prepaid.starts_at), timedelta(0))
        self._at = now
