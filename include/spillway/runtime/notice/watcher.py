"""What a watcher is, and the threads that let watchers look."""

from __future__ import annotations

import logging
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Final, Protocol, Self

from spillway.errors import NoticeSourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.runtime.notice.notice import Notice, NoticeSeen

log = logging.getLogger(__name__)


ADVICE_AHEAD: Final = timedelta(minutes=15)


class Watcher(Protocol):
    """One place where a vendor says that capacity will be taken back.

    Attributes:
        name: What it is called in `SPILLWAY_NOTICE` and in the log.
        period_seconds: Time between looks, as the vendor recommends.
    """

    name: str
    period_seconds: float

    def look(self) -> NoticeSeen | None:
        """Return what is said now, or None when nothing is; may block for as long as the vendor lets one wait.

        Raises:
            NoticeSourceError: It could not be asked, which says nothing of the capacity.
        """
        ...


class Patrol:
    """Lets one watcher look again and again, and tells the notice what it saw.

    Something that is `lead` or less away is a notice. What is `ADVICE_AHEAD` farther away is advice until then: leaving a
    quarter of an hour before a planned maintenance would waste that time, and a limit that is days away is no news.
    """

    def __init__(self, watcher: Watcher, notice: Notice, *, lead: timedelta) -> None:
        self._watcher = watcher
        self._notice = notice
        self._lead_seconds = lead.total_seconds()
        self._is_silent = False

    def look(self) -> float:
        """Look once; return in how many seconds to look again."""
        try:
            seen = self._watcher.look()
        except Exception as error:  # a thread that died of it would hear no notice any more
            if not self._is_silent:  # once, not every few seconds for days
                log.warning(
                    "no notice can be had from %s, which goes on being asked: %s",
                    self._watcher.name,
                    error,
                    exc_info=not isinstance(error, NoticeSourceError),
                )
            self._is_silent = True
            return self._watcher.period_seconds
        if self._is_silent:
            log.info("%s answers again", self._watcher.name)
        self._is_silent = False
        return self._watcher.period_seconds if seen is None else self._tell(seen)

    def _tell(self, seen: NoticeSeen) -> float:
        early = 0.0 if seen.is_at_once else (seen.seconds_left or 0.0) - self._lead_seconds
        if not seen.is_advice and early <= 0:
            self._notice.receive(seen)
        elif early <= ADVICE_AHEAD.total_seconds() and self._notice.advise(seen):
            log.warning("saving soon is wise: %s: %s", seen.source, seen.reason)
        return min(self._watcher.period_seconds, early if early > 0 else float("inf"))


class Lookout:
    """Watchers at work, each in a daemon thread of its own, so that one that waits holds up no other."""

    def __init__(self, watchers: Iterable[Watcher], notice: Notice, *, lead: timedelta) -> None:
        self._stopped = Event()
        self._threads = [
            Thread(
                target=self._patrol,
                args=(Patrol(watcher, notice, lead=lead),),
                name=f"notice-{watcher.name}",
                daemon=True,
            )
            for watcher in watchers
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more. A look that waits for its answer is not waited for."""
        self._stopped.set()

    def _patrol(self, patrol: Patrol) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = patrol.look()
