"""One observation loop for all leases of one pool: calls to a provider grow with pools, not with jobs.

A look is two queries of the ledger, one call to the provider, one listing of each store, and as many reads of output as
`OUTPUTS_PER_LOOK` allows, however many leases are watched.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spillway.airflow.heartbeats import Heartbeats
from spillway.airflow.pace import Pace, wish_of
from spillway.airflow.turns import Turns
from spillway.errors import (
    BackendError,
    LedgerUnavailableError,
    SpecError,
    TransientError,
)
from spillway.ledger.leases import unknown
from spillway.model import Heartbeat, Lease, LeaseState
from spillway.placement.lifecycle import is_final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from spillway.dispatch import Dispatcher

log = logging.getLogger(__name__)

OUTPUTS_PER_LOOK: Final = 20
"""Of how many jobs one look reads the output, as that is a call each; all others have their turn at the next ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one look showed of one lease.

    Attributes:
        output: What the job printed since its output was last read; None when this look did not read it.
    """

    lease: Lease
    heartbeat: Heartbeat | None
    output: str | None


News = Sighting | BaseException
"""What a watcher is told; an error says why nothing will ever be seen of the lease, such as that there is none."""


class Watch:
    """One watcher's view of a lease.

    Attributes:
        offset: Up to where the job's output was read, in bytes.
        state: What its watcher was told last; None before the first look.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.news: asyncio.Queue[News] = asyncio.Queue()
        self.offset = 0
        self.state: LeaseState | None = None

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
        self._pace = Pace(poll_seconds)
        self._heartbeats = Heartbeats()
        self._readers = Turns[Watch](OUTPUTS_PER_LOOK)
        self._watches: dict[Watch, None] = {}  # in order of arrival
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, key: str) -> AsyncIterator[Watch]:
        """Give a watch on lease `key`, to which every look arrives until the block is left."""
        watch = Watch(key)
        self._watches[watch] = None
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_repeatedly())
            self._looking.add_done_callback(self._tell_why_it_ended)
        try:
            yield watch
        finally:
            del self._watches[watch]

    async def _look_repeatedly(self) -> None:
        while self._watches:
            watches = tuple(self._watches)
            try:
                news = await asyncio.to_thread(self._look, watches)
            except (BackendError, LedgerUnavailableError, SpecError) as error:
                # Who asks us to slow down has nothing against who we are, and its backend keeps the pause.
                if wish_of(error) is None:
                    self._dispatcher = None  # made anew, with the credentials and pools of then
                self._pace.was_hindered(error)
                log.warning("could not look at pool %s: %s", self._pool, error)
                news = []
            for watch, one in news:
                watch.news.put_nowait(one)
            await asyncio.sleep(self._pace.pause_seconds())

    def _tell_why_it_ended(self, looking: asyncio.Task[None]) -> None:
        """Tell every watcher of an error that ended the loop, or they would wait for ever."""
        if not looking.cancelled() and (error := looking.exception()) is not None:
            for watch in self._watches:
                watch.news.put_nowait(error)

    def _look(self, watches: Sequence[Watch]) -> list[tuple[Watch, News]]:
        dispatcher = self._dispatcher = self._dispatcher or self._make_dispatcher()
        keys = {watch.key for watch in watches}
        leases = dispatcher.ledger.leases(keys)
        live = [lease for lease in leases.values() if not is_final(lease.state)]
        if live:
            dispatcher.observe(self._pool, live)
            leases = dispatcher.ledger.leases(keys)
        heartbeats = self._heartbeats.read(filter(_may_have_spoken, leases.values()))
        dispatcher.reconsider(leases.values(), heartbeats, unheard=self._heartbeats.unread)
        known = [watch for watch in watches if watch.key in leases]
        outputs = self._read_outputs(dispatcher, known, leases)
        news: list[tuple[Watch, News]] = [
            (watch, unknown(watch.key)) for watch in watches if watch.key not in leases
        ]
        for watch in known:
            lease = leases[watch.key]
            watch.state = lease.state
            sighting = Sighting(
                lease=lease, heartbeat=heartbeats.get(lease.key), output=outputs.get(watch)
            )
            news.append((watch, sighting))
        return news

    def _read_outputs(
        self, dispatcher: Dispatcher, watches: Iterable[Watch], leases: Mapping[str, Lease]
    ) -> Mapping[Watch, str]:
        """Read on in the outputs whose turn it is: first of jobs that ended, for which no other turn comes.

        It comes last in a look, so it also tells the pace how the look went.
        """
        outputs: dict[Watch, str] = {}
        for watch in self._readers.take(watches, lambda watch: _urgency(watch, leases[watch.key])):
            try:
                chunk = dispatcher.read_log(leases[watch.key], watch.offset)
            except TransientError as error:  # the others would not fare better
                self._pace.was_hindered(error)
                return outputs
            except BackendError as error:
                log.debug("the output of %s could not be read: %s", watch.key, error)
                continue
            outputs[watch], watch.offset = chunk.text, chunk.next_offset
        self._pace.went_well()
        return outputs


def _may_have_spoken(lease: Lease) -> bool:
    """Whether there may be a heartbeat; one that never started is not looked for at every look."""
    return lease.started_at is not None or is_final(lease.state)


def _urgency(watch: Watch, lease: Lease) -> int:
    if is_final(lease.state):
        return 0
    return 1 if lease.state is not watch.state else 2


_observers: dict[tuple[str, str, int], PoolObserver] = {}


def observer_of(
    conn_id: str, pool: str, poll_seconds: float, make_dispatcher: Callable[[], Dispatcher]
) -> PoolObserver:
    """Return the running event loop's observer of `pool`, making it at the first call."""
    place = (conn_id, pool, id(asyncio.get_running_loop()))
    if place not in _observers:
        _observers[place] = PoolObserver(make_dispatcher, pool, poll_seconds)
    return _observers[place]
