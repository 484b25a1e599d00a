"""Moving a job that runs: asking the policy over time about it, and asking the job to save and stop."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import Backend, Job
from spillway.checkpoints.open import open_store
from spillway.model import JobEvent, LeaseState
from spillway.placement.over_time import LOOK, goes_on_in, has_time, what_is_left
from spillway.runtime.stop_request import StopRequest, ask_to_stop, read_stop_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from spillway.ledger import Ledger
    from spillway.lookout import Lookout
    from spillway.model import Heartbeat, Lease
    from spillway.quotes import Quotes

log = logging.getLogger(__name__)

HEAR_WITHIN: Final = timedelta(minutes=1)
"""How long a job may take to see that it is asked to stop."""


class Moves:
    """Looks at running leases, and moves those that should be elsewhere. A look at one lease is due once in `LOOK`."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        quotes: Quotes,
        lookout: Lookout,
        backend: Callable[[str], Backend],
        heartbeat: Callable[[Lease], Heartbeat | None],
    ) -> None:
        self._ledger = ledger
        self._quotes = quotes
        self._lookout = lookout
        self._backend = backend
        self._heartbeat = heartbeat
        self._looked_at: dict[str, datetime] = {}

    def look(self, lease: Lease, now: datetime) -> None:
        """Ask the job to save and stop if it should go on elsewhere, or wait; stop one that was asked and did not."""
        if lease.state is LeaseState.MOVING:
            self._stop_if_overdue(lease, now)
        elif lease.state is LeaseState.RUNNING and self._is_due(lease.key, now):
            self._weigh(lease, now)

    def forget(self, key: str) -> None:
        """Forget a lease that has ended."""
        self._looked_at.pop(key, None)
        self._lookout.forget(key)

    def _is_due(self, key: str, now: datetime) -> bool:
        last = self._looked_at.get(key)
        if last is not None and now - last < LOOK:
            return False
        self._looked_at[key] = now
        return True

    def _weigh(self, lease: Lease, now: datetime) -> None:
        placement = self._ledger.placement(lease.key)
        task = placement.task
        if task is None or not has_time(task):
            return
        said = self._heartbeat(lease)
        offers = self._quotes.offers(what_is_left(task, said), now, max_age=LOOK)
        weighed = self._lookout.while_running(task, lease, placement.offer, said, offers, now)
        if weighed is None:
            return
        better = goes_on_in(weighed)
        if better != lease.pool:
            self._ask(lease, weighed.decision.reason, now, moving_to=better)

    def _ask(self, lease: Lease, reason: str, now: datetime, *, moving_to: str | None) -> None:
        stop_by = now + HEAR_WITHIN + lease.submission.grace_period
        request = StopRequest(token=lease.token, reason=reason, asked_at=now, stop_by=stop_by)
        ask_to_stop(open_store(lease.submission.store), lease.submission.prefix, request)
        self._ledger.record(
            lease.key, JobEvent.ASKED_TO_MOVE, now=now, detail=reason, moving_to=moving_to
        )
        log.info("lease asked to move: %s: %s", lease.key, reason)

    def _stop_if_overdue(self, lease: Lease, now: datetime) -> None:
        """Stop a job that was asked and did not: what it has not saved is done again."""
        store = open_store(lease.submission.store)
        asked = read_stop_request(store, lease.submission.prefix, lease.token)
        if asked is None or now > asked.stop_by:
            self._backend(lease.pool).release(Job(key=lease.key, provider_id=lease.provider_id))
            self._ledger.record(lease.key, JobEvent.PREEMPTED, now=now, detail=lease.detail)
