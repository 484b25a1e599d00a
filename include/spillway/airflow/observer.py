"""One observation loop for all leases of one pool: calls to a provider grow with pools, not with jobs."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spillway.errors import LedgerError, TransientError
from spillway.model import Heartbeat, Lease
from spillway.placement.lifecycle import is_final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from spillway.dispatch import Dispatcher

log = logging.getLogger(__name__)

MAX_BACK_OFF: Final = 12
"""A provider that cannot be asked is asked this many times less often, at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one look showed of one lease.

    Attributes:
        output: What the job printed since the last look.
    """

    lease: Lease
    heartbeat: Heartbeat | None
    output: str


class PoolObserver:
    """Looks at every watched lease of one pool at once, and tells each watcher what it saw.

    Lives in one event loop. The loop that looks runs while somebody watches; blocking calls are made in a thread.
    """

    def __init__(self, dispatcher: Dispatcher, pool: str, poll_seconds: float) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._poll_seconds = poll_seconds
        self._watchers: dict[str, asyncio.Queue[Sighting]] = {}
        self._offsets: dict[str, int] = {}
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, key: str) -> AsyncIterator[asyncio.Queue[Sighting]]:
        """Give a queue in which every look at lease `key` arrives until the block is left."""
        queue: asyncio.Queue[Sighting] = asyncio.Queue()
        self._watchers[key] = queue
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_repeatedly())
        try:
            yield queue
        finally:
            self._watchers.pop(key, None)
            self._offsets.pop(key, None)

    async def _look_repeatedly(self) -> None:
        failures = 0
        while self._watchers:
            try:
                sightings = await asyncio.to_thread(self._look, tuple(self._watchers))
                failures = 0
            except (TransientError, LedgerError) as error:
                failures += 1
                log.warning("could not look at pool %s (%d times): %s", self._pool, failures, error)
                sightings = []
            for sighting in sightings:
                if queue := self._watchers.get(sighting.lease.key):
                    queue.put_nowait(sighting)
            await asyncio.sleep(self._pause(failures))

    def _pause(self, failures: int) -> float:
        jitter: float = 1 + random.uniform(-0.1, 0.1)  # noqa: S311 # spreads the polls of many triggerers
        return self._poll_seconds * min(2.0**failures, MAX_BACK_OFF) * jitter

    def _look(self, keys: tuple[str, ...]) -> list[Sighting]:
        leases = [self._dispatcher.ledger.lease(key) for key in keys]
        live = [lease for lease in leases if not is_final(lease.state)]
        if live:
            self._dispatcher.observe(self._pool, live)
        return [self._sight(key) for key in keys]

    def _sight(self, key: str) -> Sighting:
        lease = self._dispatcher.ledger.lease(key)
        chunk = self._dispatcher.read_log(lease, self._offsets.get(key, 0))
        self._offsets[key] = chunk.next_offset
        return Sighting(lease=lease, heartbeat=self._dispatcher.heartbeat(lease), output=chunk.text)


_observers: dict[tuple[str, str, int], PoolObserver] = {}


async def observer_of(
    conn_id: str, pool: str, poll_seconds: float, make_dispatcher: Callable[[], Dispatcher]
) -> PoolObserver:
    """Return this event loop's observer of `pool`, making it at the first call."""
    place = (conn_id, pool, id(asyncio.get_running_loop()))
    if place not in _observers:
        dispatcher = await asyncio.to_thread(make_dispatcher)
        _observers.setdefault(place, PoolObserver(dispatcher, pool, poll_seconds))
    return _observers[place]
