"""What the pools of a deployment would rent to a task now, by all that is known of them."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import Backend, SupportsCapacity
from spillway.catalog.offers import left_of_quotas, make_offers
from spillway.errors import BackendError
from spillway.placement.experience import LOOK_BACK, Experience, outlook
from spillway.placement.room import LONGEST_COOL_DOWN, room_of
from spillway.placement.room import LOOK_BACK as ANSWERS_BACK
from spillway.placement.shifting import WEEKS_BACK, RoomAhead, room_ahead
from spillway.placement.transfer import with_transfer_prices

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from spillway.catalog.store_place import StorePlace
    from spillway.ledger import Ledger
    from spillway.model import Offer, Pool, PoolDay, PoolUsage, TaskKey, TaskSpec

log = logging.getLogger(__name__)

KEEP_DAYS_FOR: Final = timedelta(minutes=5)
"""How long what pools went through is taken from memory: it changes in days, and is summed up over every lease."""

_SILENT: Final = "did not answer a moment ago"
_REFUSED: Final = "refused a moment ago"


class Quotes:
    """Asks the ledger and the providers, and makes offers of what they say."""

    def __init__(
        self,
        *,
        pools: Mapping[str, Pool],
        ledger: Ledger,
        backend: Callable[[str], Backend],
        store_place: StorePlace,
    ) -> None:
        self._pools = pools
        self._ledger = ledger
        self._backend = backend
        self._store_place = store_place
        self._room: tuple[datetime, Mapping[str, int | None], set[str]] | None = None
        self._days: tuple[datetime, Mapping[str, Sequence[PoolDay]]] | None = None

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
        pools = self._pools.values()
        asked_at, free, silent = self._room_at(now, max_age)
        usage = self._ledger.usage(pools, now=now, cool_down=LONGEST_COOL_DOWN)
        cooling = self._cooling_down(usage, free, now) | dict.fromkeys(silent, _SILENT)
        cooling |= dict.fromkeys(refused, _REFUSED)
        seen = outlook(pools, usage, task, self._experience(task, now), now)
        offers = make_offers(
            seen.pools,
            usage=seen.usage,
            free_slots=free,
            task=task,
            now=now,
            store_jurisdiction=self._store_place.jurisdiction,
            quota_slots=left_of_quotas(pools, usage),
            last_launches=self._ledger.last_launches(pools),
        )
        if self._store_place.place is not None:
            offers = with_transfer_prices(offers, self._store_place.place)
        return tuple(
            replace(
                offer,
                cooling_down=offer.pool in cooling,
                cooling_reason=cooling.get(offer.pool, ""),
                room_at=None if free[offer.pool] is None else asked_at,
            )
            for offer in offers
        )

    def room_ahead(
        self, now: datetime, until: datetime, *, asking: TaskKey | None = None
    ) -> list[RoomAhead]:
        """Return when each committed pool is expected to have room beside what other tasks than `asking` wait for."""
        committed = {n: pool for n, pool in self._pools.items() if pool.commitment is not None}
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
        self, usage: Mapping[str, PoolUsage], free: Mapping[str, int | None], now: datetime
    ) -> dict[str, str]:
        """Return the pools that are likely to refuse, with the reason. One whose provider says its room is not guessed at."""
        suspects = [
            name for name, used in usage.items() if used.cooling_down and free[name] is None
        ]
        if not suspects:
            return {}
        answers = self._ledger.room_answers(suspects, since=now - ANSWERS_BACK)
        rooms = {name: room_of(answers[name], now) for name in suspects}
        return {name: room.reason(now) for name, room in rooms.items() if room.is_cooling_down(now)}

    def _experience(self, task: TaskSpec, now: datetime) -> Experience:
        since = now - LOOK_BACK
        speeds = self._ledger.speeds(task.workload, since=since)
        return Experience(pool_days=self._pool_days(now), speeds=speeds)

    def _pool_days(self, now: datetime) -> Mapping[str, Sequence[PoolDay]]:
        if self._days is None or now - self._days[0] > KEEP_DAYS_FOR:
            days = self._ledger.pool_days(self._pools.values(), since=now - LOOK_BACK, now=now)
            self._days = (now, days)
        return self._days[1]

    def _room_at(
        self, now: datetime, max_age: timedelta
    ) -> tuple[datetime, Mapping[str, int | None], set[str]]:
        if self._room is None or now - self._room[0] >= max_age:
            self._room = (now, *self._ask_for_room())
        return self._room

    def _ask_for_room(self) -> tuple[dict[str, int | None], set[str]]:
        """Return what each provider says of its room, None for one that never says, and which did not answer."""
        free: dict[str, int | None] = {}
        silent: set[str] = set()
        for name in self._pools:
            backend = self._backend(name)
            try:
                free[name] = backend.free_slots() if isinstance(backend, SupportsCapacity) else None
            except BackendError as error:  # one silent provider must not keep tasks from the others
                log.warning("pool %s could not be asked for room: %s", name, error)
                free[name] = None
                silent.add(name)
        return free, silent
