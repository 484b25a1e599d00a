"""Writing heartbeats at a bounded rate, whatever the loop that reports does, and whatever the store does."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Protocol, Self

from spillway.errors import StoreError
from spillway.runtime.heartbeats import end_heartbeat, write_heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.checkpoints.store import ObjectStore
    from spillway.model import Heartbeat
    from spillway.runtime.clock import Clock
    from spillway.runtime.notice import Notice

log = logging.getLogger(__name__)

LOG_TAIL_BYTES = 4 * 1024
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tempo:
    """How often heartbeats are written, in seconds.

    Attributes:
        news: Least time between two that report progress.
        urgent: Least time between two when something happened, such as a checkpoint.
        idle: Time after which one is written that says nothing new, so that "alive" can be seen.
    """

    news: float = 5.0
    urgent: float = 1.0
    idle: float = 30.0

    @classmethod
    def of(cls, store: str) -> Tempo:
        """Return the tempo for the store at that URL: a folder costs nothing to write to, a bucket costs by the request."""
        return cls(news=1.0, urgent=0.2) if store.startswith("file:") else cls()

    def pause(self, since_last: float, *, has_news: bool, is_urgent: bool) -> float:
        """Return how long to wait from now on, when the last one was written `since_last` seconds ago."""
        least = self.urgent if is_urgent else self.news if has_news else self.idle
        return max(least - since_last, 0.0)


class Pulse(Protocol):
    """Takes what a session has to say of itself."""

    def complete_by(self, read: Callable[[], Heartbeat]) -> None:
        """Ask `read` what there is to say whenever a heartbeat is written; it is called from any thread."""
        ...

    def hurry(self) -> None:
        """Write the next one soon: something happened beside the work. Safe to call from any thread."""
        ...

    def tell(self, heartbeat: Heartbeat, *, at_once: bool = False) -> None:
        """Take the newest heartbeat; `at_once` when something happened that should not wait."""
        ...

    def end(self, heartbeat: Heartbeat) -> None:
        """Write the last one."""
        ...


class DirectPulse:
    """Writes in the caller's own thread, and so only what it is told; for a notebook, where no thread should outlive its cell."""

    def __init__(
        self, store: ObjectStore, prefix: str, *, clock: Clock, seconds: float = 1.0
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock
        self._seconds = seconds
        self._next = -math.inf

    def complete_by(self, read: Callable[[], Heartbeat]) -> None:
        """Do nothing."""

    def hurry(self) -> None:
        """Do nothing."""

    def tell(self, heartbeat: Heartbeat, *, at_once: bool = False) -> None:
        """Write it, unless the last one was written a moment ago."""
        if not at_once and self._clock.monotonic() < self._next:
            return
        self._next = self._clock.monotonic() + self._seconds
        _try(lambda: write_heartbeat(self._store, self._prefix, heartbeat))

    def end(self, heartbeat: Heartbeat) -> None:
        """Write the last one."""
        _try(lambda: end_heartbeat(self._store, self._prefix, heartbeat))


class BackgroundPulse:
    """Writes in a thread of its own: a slow store never holds up the work, and a fast loop never floods the store.

    Each beat carries the tail of the log and the notice, so that they are known of a job that is killed, too.
    """

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        *,
        clock: Clock,
        notice: Notice,
        tempo: Tempo | None = None,
        read_log: Callable[[], str] = str,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._clock = clock
        self._notice = notice
        self._tempo = tempo or Tempo()
        self._read_log = read_log
        self._read: Callable[[], Heartbeat] | None = None
        self._told: Heartbeat | None = None
        self._written: Heartbeat | None = None
        self._written_at = -math.inf
        self._is_urgent = self._is_over = self._has_failed = False
        # Safe to put into from a signal handler, as an Event is not.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=self._beat, name="spillway-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._notice.wake_by(self._take_notice)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def complete_by(self, read: Callable[[], Heartbeat]) -> None:
        """Ask `read` what there is to say whenever a heartbeat is written."""
        self._read = read

    def tell(self, heartbeat: Heartbeat, *, at_once: bool = False) -> None:
        """Take the newest heartbeat; costs the caller next to nothing."""
        is_first = self._told is None or (self._told.step is None and heartbeat.step is not None)
        self._told = heartbeat
        if at_once or is_first:
            self.hurry()

    def end(self, heartbeat: Heartbeat) -> None:
        """Write the last one, in the caller's thread. A beat that hangs in the store is not waited for much longer."""
        self._stop()
        last = self._complete(heartbeat)
        _try(lambda: end_heartbeat(self._store, self._prefix, last))

    def _take_notice(self) -> None:
        self._written_at = -math.inf  # it may be the last thing that gets out
        self.hurry()

    def hurry(self) -> None:
        """Write the next one soon."""
        self._is_urgent = True
        self._wake.put(None)

    def _stop(self) -> None:
        self._is_over = True
        self._wake.put(None)
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_SECONDS)

    def _beat(self) -> None:
        while not self._is_over:
            since = self._clock.monotonic() - self._written_at
            has_news = self._told is not self._written
            pause = self._tempo.pause(since, has_news=has_news, is_urgent=self._is_urgent)
            if pause == 0.0 and self._told is not None:
                self._write(self._told)
                continue
            with suppress(Empty):  # news come without waking us
                self._wake.get(timeout=min(pause or self._tempo.news, self._tempo.news))

    def _write(self, told: Heartbeat) -> None:
        self._is_urgent = False
        self._written = told
        self._written_at = self._clock.monotonic()
        beat = self._complete(self._read() if self._read else told)
        self._has_failed = not _try(
            lambda: write_heartbeat(self._store, self._prefix, beat), quiet=self._has_failed
        )

    def _complete(self, told: Heartbeat) -> Heartbeat:
        return replace(
            told,
            alive_at=self._clock.now(),
            notice=self._notice.reason,
            log_tail=self._read_log(),
        )


def _try(write: Callable[[], None], *, quiet: bool = False) -> bool:
    """Write; return whether that worked. The work matters more than the report of it: the next one may get through."""
    try:
        write()
    except StoreError as error:
        log.log(
            logging.DEBUG if quiet else logging.WARNING, "the heartbeat was not written: %s", error
        )
        return False
    return True
