"""The scheduler's own request to stop, which it leaves in the store: another pool has become the better one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spillway.errors import NoticeSourceError, StoreError
from spillway.runtime.clock import Clock, SystemClock
from spillway.runtime.notice.notice import NoticeSeen
from spillway.runtime.stop_request import read_stop_request

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore
    from spillway.model import Submission


class RequestWatcher:
    """Asks the store whether the lease was asked to stop."""

    name = "scheduler"
    period_seconds = 5.0

    def __init__(
        self, store: ObjectStore, submission: Submission, clock: Clock | None = None
    ) -> None:
        self._store = store
        self._prefix = submission.prefix
        self._token = submission.token
        self._clock = clock or SystemClock()
        self._seen_at: float | None = None

    def look(self) -> NoticeSeen | None:
        """Return the request as a notice that takes effect at once, or None.

        Raises:
            NoticeSourceError: The store could not be read.
        """
        try:
            request = read_stop_request(self._store, self._prefix, self._token)
        except StoreError as error:
            raise NoticeSourceError(str(error)) from error
        if request is None:
            return None
        now = self._clock.monotonic()
        self._seen_at = now if self._seen_at is None else self._seen_at
        # The scheduler's clock is not ours: only how long it gave counts, and when we came to know of it.
        given = (request.stop_by - request.asked_at).total_seconds()
        left = given - self.period_seconds - (now - self._seen_at)
        return NoticeSeen(
            source=self.name, reason=request.reason, seconds_left=max(left, 0.0), is_at_once=True
        )
