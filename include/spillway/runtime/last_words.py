"""What is said for a job that does not stop in time after a notice.

Code that does not look at its session would be killed when the capacity goes, and nobody would learn why: a killed process
has no exit code of its own, no result and no last heartbeat. So a moment before, they are written for it, and the process
exits as preempted. The last committed checkpoint stands. Where nobody knows when the capacity goes, nothing is done.
"""

from __future__ import annotations

import logging
import os
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Self

from spillway.runtime import exit_codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.runtime.clock import Clock
    from spillway.runtime.notice import Notice

log = logging.getLogger(__name__)

MOST_SECONDS = 2.0
SHARE = 0.2
"""The last words take this share of the time after the notice, `MOST_SECONDS` at the most."""


class LastWords:
    """Waits beside the job; ends the process when a notice runs out."""

    def __init__(
        self,
        notice: Notice,
        say: Callable[[], None],
        *,
        clock: Clock,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self._notice = notice
        self._say = say
        self._clock = clock
        self._leave = leave
        self._ending = Lock()
        self._is_over = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=self._wait, name="spillway-last-words", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._notice.wake_by(lambda: self._wake.put(None))
        return self

    def __exit__(self, *_: object) -> None:
        """Let the job end by itself: it has the word. Does not return where the last words are being said already."""
        self._ending.acquire()  # for good: whoever ends first is the only one who says how
        self._is_over = True
        self._wake.put(None)

    def _wait(self) -> None:
        while not self._is_over:
            left = self._until_due()
            if left is not None and left <= 0:
                return self._end()
            try:
                self._wake.get(timeout=left)
            except Empty:
                continue
        return None

    def _until_due(self) -> float | None:
        deadline, received_at = self._notice.deadline, self._notice.received_at
        if deadline is None or received_at is None:
            return None
        margin = min(MOST_SECONDS, SHARE * max(deadline - received_at, 0.0))
        return deadline - margin - self._clock.monotonic()

    def _end(self) -> None:
        if not self._ending.acquire(blocking=False):  # the job has just ended by itself
            return
        log.warning("the job did not stop in time after the notice; leaving")
        speaker = Thread(target=self._say, name="spillway-speaker", daemon=True)
        speaker.start()
        speaker.join(
            MOST_SECONDS
        )  # a store that hangs must not keep us from exiting with our own code
        self._leave(exit_codes.PREEMPTED)
