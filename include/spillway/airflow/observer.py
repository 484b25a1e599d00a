"""One observation loop for all leases of one pool: calls to a provider grow with pools, not with jobs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spillway.airflow.heartbeats import Heartbeats
from spillway.errors import (
    BackendError,
    LedgerError,
    LedgerUnavailableError,
    SpecError,
    StoreError,
)
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


News = Sighting | BaseException
"""What a watcher is told; an error says why nothing will ever be seen of the lease, such as that there is none."""


class Watch:
    """One watcher's view of a lease."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.news: asyncio.Queue[News] = asyncio.Queue()
        self.offset = 0

    async def next(self) -> Sighting:
        """Wait for the next look at the lease.

        Raises:
            LedgerError: There is no such lease.
        """
        news = await self.news.get()
        if isinstance(news, BaseException):
            raise news
        return news


class PoolObserver:
    """Looks at every watched lease of one pool at once, and tells each watcher what it saw.

    Lives in one event loop. The loop that looks runs while somebody watches; blocking calls are made in a thread. A provider
    that cannot be asked is asked again, ever less often: that says nothing of its jobs.
    """

    def __init__(
        self, make_dispatcher: Callable[[], Dispatcher], pool: str, poll_seconds: float
    ) -> None:
        self._make_dispatcher = make_dispatcher
        self._dispatcher: Dispatcher | None = None
        self._pool = pool
        self._poll_seconds = poll_seconds
        self._heartbeats = Heartbeats()
        self._watches: list[Watch] = []
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, key: str) -> AsyncIterator[Watch]:
        """Give a watch on lease `key`, to which every look arrives until the block is left."""
        watch = Watch(key)
        self._watches.append(watch)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_repeatedly())
            self._looking.add_done_callback(self._tell_why_it_ended)
        try:
            yield watch
        finally:
            self._watches.remove(watch)

    async def _look_repeatedly(self) -> None:
        failures = 0
        while self._watches:
            watches = tuple(self._watches)
            try:
                news = await asyncio.to_thread(self._look, watches)
                failures = 0
            except (BackendError, LedgerUnavailableError, SpecError) as error:
                failures += 1
                self._dispatcher = None  # made anew, with the credentials and pools of then
                log.warning("could not look at pool %s (%d times): %s", self._pool, failures, error)
                news = []
            for watch, one in news:
                watch.news.put_nowait(one)
            await asyncio.sleep(self._pause(failures))

    def _tell_why_it_ended(self, looking: asyncio.Task[None]) -> None:
        """Tell every watcher of an error that ended the loop, or they would wait for ever."""
        if not looking.cancelled() and (error := looking.exception()) is not None:
            for watch in self._watches:
                watch.news.put_nowait(error)

    def _pause(self, failures: int) -> float:
        jitter: float = 1 + random.uniform(-0.1, 0.1)  # noqa: S311 # spreads the polls of many triggerers
        return self._poll_seconds * min(2.0**failures, MAX_BACK_OFF) * jitter

    def _look(self, watches: tuple[Watch, ...]) -> list[tuple[Watch, News]]:
        dispatcher = self._dispatcher = self._dispatcher or self._make_dispatcher()
        news: list[tuple[Watch, News]] = []
        by_key: defaultdict[str, list[Watch]] = defaultdict(list)
        live: list[Lease] = []
        for watch in watches:
            by_key[watch.key].append(watch)
        for key, unknown in list(by_key.items()):
            try:
                lease = dispatcher.ledger.lease(key)
            except LedgerUnavailableError:
                raise
            except LedgerError as error:
                news += [(watch, error) for watch in unknown]
                del by_key[key]
                continue
            if not is_final(lease.state):
                live.append(lease)
        if live:
            dispatcher.observe(self._pool, live)
            for lease in live:
                _reconsider(dispatcher, lease.key)
        leases = {key: dispatcher.ledger.lease(key) for key in by_key}
        heartbeats = self._heartbeats.read(leases.values())
        news += [
            (watch, _sight(dispatcher, watch, leases[key], heartbeats.get(key)))
            for key, known in by_key.items()
            for watch in known
        ]
        return news


def _reconsider(dispatcher: Dispatcher, key: str) -> None:
    """Move the lease if it should go on elsewhere; what keeps that from being asked keeps nobody from watching."""
    try:
        dispatcher.reconsider(dispatcher.ledger.lease(key))
    except (BackendError, StoreError) as error:
        log.warning("whether %s should move could not be asked: %s", key, error)


def _sight(
    dispatcher: Dispatcher, watch: Watch, lease: Lease, heartbeat: Heartbeat | None
) -> Sighting:
    output = ""
    with suppress(BackendError):  # its output may be had at the next look
        chunk = dispatcher.read_log(lease, watch.offset)
        output, watch.offset = chunk.text, chunk.next_offset
    return Sighting(lease=lease, heartbeat=heartbeat, output=output)


_observers: dict[tuple[str, str, int], PoolObserver] = {}


def observer_of(
    conn_id: str, pool: str, poll_seconds: float, make_dispatcher: Callable[[], Dispatcher]
) -> PoolObserver:
    """Return the running event loop's observer of `pool`, making it at the first call."""
    place = (conn_id, pool, id(asyncio.get_running_loop()))
    if place not in _observers:
        _observers[place] = PoolObserver(make_dispatcher, pool, poll_seconds)
    return _observers[place]
