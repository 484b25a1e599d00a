"""What the pools of a deployment would rent to a task now, by all that is known of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import (
    Backend,
    SupportsCapacity,
    SupportsDatedCapacity,
    SupportsEnd,
)
from spillway.catalog.offers import left_of_quotas, make_offers
from spillway.catalog.store_place import StorePlace
from spillway.errors import BackendError
from spillway.kept import Kept, at_once
from spillway.model import Pool, PoolDay, PoolUsage, SpeedSample
from spillway.placement.experience import LOOK_BACK, Experience, outlook
from spillway.placement.room import LONGEST_COOL_DOWN, room_of
from spillway.placement.room import LOOK_BACK as ANSWERS_BACK
from spillway.placement.shifting import WEEKS_BACK, RoomAhead, room_ahead
from spillway.placement.transfer import with_transfer_prices

if TYPE_CHECKING:
    from collections.abc import Collection

    from spillway.kept import Aside
    from spillway.ledger import Ledger
    from spillway.ledger.waiting import WaitingTask
    from spillway.model import Offer, TaskKey, TaskSpec

log = logging.getLogger(__name__)

KEEP_HISTORY_FOR: Final = timedelta(minutes=5)
"""How long what pools and jobs went through is taken from memory: it changes in days, and is summed up over every lease."""

_SILENT: Final = "did not answer a moment ago"
_REFUSED: Final = "refused a moment ago"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What the providers said, by pool name.

    Attributes:
        pools: The pools, with the ends that were told.
        free: How many more jobs each would start; None for one that never says.
        dated: When each said so; None for one of which only our backend's count is known.
        silent: Those that did not answer.
    """

    asked_at: datetime
    pools: dict[str, Pool]
    free: dict[str, int | None]
    dated: dict[str, datetime | None]
    silent: set[str]

    def room_at(self, pool: str) -> datetime | None:
        """Return how old what `free` has of the pool is at the most; None where it has nothing."""
        return None if self.free[pool] is None else self.dated.get(pool) or self.asked_at


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All pools at one moment, of which offers to any number of tasks are made.

    Attributes:
        said: What the providers said.
        usage: How each pool is used, by name.
        cooling: Those that are likely to refuse, with the reason.
        days: What each pool went through, a day at a time.
        launches: When a lease on each was last seen to start.
        speeds_of: How fast leases of a workload worked.
    """

    now: datetime
    said: _Said
    usage: Mapping[str, PoolUsage]
    cooling: Mapping[str, str]
    days: Mapping[str, Sequence[PoolDay]]
    launches: Mapping[str, datetime]
    speeds_of: Callable[[str], Sequence[SpeedSample]]
    store_place: StorePlace

    def offers(self, task: TaskSpec, refused: Collection[str] = ()) -> tuple[Offer, ...]:
        """Return one offer a pool for `task`; the pools of `refused` have just shown that they have no room."""
        pools, now = self.said.pools.values(), self.now
        cooling = {**self.cooling, **dict.fromkeys(refused, _REFUSED)}
        experience = Experience(pool_days=self.days, speeds=self.speeds_of(task.workload))
        seen = outlook(pools, self.usage, task, experience, now)
        offers = make_offers(
            seen.pools,
            usage=seen.usage,
            free_slots=self.said.free,
            task=task,
            now=now,
            store_jurisdiction=self.store_place.jurisdiction,
            quota_slots=left_of_quotas(pools, self.usage),
            last_launches=self.launches,
        )
        if self.store_place.place is not None:
            offers = with_transfer_prices(offers, self.store_place.place)
        return tuple(
            replace(
                offer,
                cooling_down=offer.pool in cooling,
                cooling_reason=cooling.get(offer.pool, ""),
                room_at=self.said.room_at(offer.pool),
            )
            for offer in offers
        )


class Quotes:
    """Asks the ledger and the providers, and makes offers of what they say."""

    def __init__(
        self,
        *,
        pools: Mapping[str, Pool],
        ledger: Ledger,
        backend: Callable[[str], Backend],
        store_place: StorePlace,
        aside: Aside = at_once,
    ) -> None:
        self._pools = pools
        self._ledger = ledger
        self._backend = backend
        self._store_place = store_place
        self._said: _Said | None = None
        self._days: Kept[None, Mapping[str, Sequence[PoolDay]]] = Kept(KEEP_HISTORY_FOR, aside)
        self._launches: Kept[None, Mapping[str, datetime]] = Kept(KEEP_HISTORY_FOR, aside)
        self._speeds: Kept[str, Sequence[SpeedSample]] = Kept(KEEP_HISTORY_FOR, aside)

    def offers(
        self,
        task: TaskSpec,
        now: datetime,
        refused: Collection[str] = (),
        *,
        max_age: timedelta = timedelta(0),
    ) -> tuple[Offer, ...]:
        """Return one offer a pool for `task`.

        Args:
            task: What the offers are for.
            now: The moment of asking.
            refused: Pools that have just shown that they have no room.
            max_age: How old the providers' word about their room may be; with an age allowed, calls to them do not grow
                with the number of tasks that are looked at.
        """
        return self.view(now, max_age=max_age).offers(task, refused)

    def view(self, now: datetime, *, max_age: timedelta = timedelta(0)) -> View:
        """Return the pools as they are now, or as they were `max_age` ago by their providers' word.

        With an age allowed, nothing is summed up over every lease before it answers: what pools and jobs went through is
        what was kept of it, and is read again aside.
        """
        said = self._what_is_said(now, max_age)
        pools = said.pools.values()
        usage = self._ledger.usage(pools, now=now, cool_down=LONGEST_COOL_DOWN)
        cooling = self._cooling_down(usage, said.dated, now) | dict.fromkeys(said.silent, _SILENT)
        ledger, since = self._ledger, now - LOOK_BACK
        if max_age:
            days = self._days.lately(
                None, now, lambda _: ledger.pool_days(pools, since=since, now=now)
            )
            launches = self._launches.lately(None, now, lambda _: ledger.last_launches(pools))
            speeds_of = partial(
                self._speeds.lately, now=now, ask=lambda name: ledger.speeds(name, since=since)
            )
        else:
            days = self._days.get(
                None, now, lambda _: ledger.pool_days(pools, since=since, now=now)
            )
            launches = ledger.last_launches(pools)
            speeds_of = partial(ledger.speeds, since=since)
        return View(
            now=now,
            said=said,
            usage=usage,
            cooling=cooling,
            days=days,
            launches=launches,
            speeds_of=speeds_of,
            store_place=self._store_place,
        )

    def waiting_for_room(
        self, now: datetime, *, overdue: timedelta, most: int
    ) -> list[WaitingTask]:
        """Return tasks for which no pool had room, the longest waiting first, of the `most` that have waited the longest.

        Those that wait of their own accord, for a better price or for tonight, are none of them; nor those that were to ask again
        and are `overdue`.
        """
        found = self._ledger.waiting(now=now, overdue=overdue, most=most)
        return [one for one in found if one.unplaced.task is not None and not one.unplaced.reason]

    def room_ahead(
        self, now: datetime, until: datetime, *, asking: TaskKey | None = None
    ) -> list[RoomAhead]:
        """Return when each committed pool is expected to have room beside what other tasks than `asking` wait for."""
        pools = self._pools if self._said is None else self._said.pools
        committed = {n: pool for n, pool in pools.items() if pool.commitment is not None}
        if not committed:
            return []
        since = now - WEEKS_BACK * timedelta(weeks=1)
        planned = [
            one.unplaced.planned
            for one in self._ledger.waiting(now=now)
            if one.unplaced.planned is not None and one.task != asking
        ]
        return [
            room_ahead(
                pool,
                self._ledger.slot_intervals(name, since=since, now=now),
                now,
                until,
                planned=planned,
            )
            for name, pool in committed.items()
        ]

    def _cooling_down(
        self, usage: Mapping[str, PoolUsage], dated: Mapping[str, datetime | None], now: datetime
    ) -> dict[str, str]:
        """Return the pools that are likely to refuse, with the reason; `dated` are the words of providers on their room."""
        suspects = [name for name, used in usage.items() if used.cooling_down]
        if not suspects:
            return {}
        answers = self._ledger.room_answers(suspects, since=now - ANSWERS_BACK)
        rooms = {name: room_of(answers[name], now, dated.get(name)) for name in suspects}
        return {name: room.reason(now) for name, room in rooms.items() if room.is_cooling_down(now)}

    def _what_is_said(self, now: datetime, max_age: timedelta) -> _Said:
        if self._said is None or now - self._said.asked_at >= max_age:
            self._said = self._ask(now)
        return self._said

    def _ask(self, now: datetime) -> _Said:
        said = _Said(asked_at=now, pools=dict(self._pools), free={}, dated={}, silent=set())
        for name, pool in self._pools.items():
            backend = self._backend(name)
            said.free[name] = None
            try:
                if isinstance(backend, SupportsEnd):
                    said.pools[name] = replace(pool, said_end=backend.said_end())
                if isinstance(backend, SupportsCapacity):
                    said.free[name] = backend.free_slots()
                if isinstance(backend, SupportsDatedCapacity):
                    said.dated[name] = backend.room_said_at()
            except BackendError as error:  # one silent provider must not keep tasks from the others
                log.warning("pool %s could not be asked for room: %s", name, error)
                said.silent.add(name)
        return said
