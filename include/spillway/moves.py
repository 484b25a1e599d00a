"""Moving a job that runs: asking the policy over time about it, and asking the job to save and stop."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import Backend, Job
from spillway.checkpoints.open import open_store
from spillway.errors import BackendError, StoreError
from spillway.lookout import Silence
from spillway.model import JobEvent, LeaseState
from spillway.placement.over_time import LOOK, goes_on_in, has_time, what_is_left
from spillway.runtime.stop_request import StopRequest, ask_to_stop, read_stop_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from spillway.ledger import Ledger
    from spillway.lookout import Lookout
    from spillway.model import Heartbeat, Lease, TaskSpec
    from spillway.quotes import Quotes, View

log = logging.getLogger(__name__)

AT_ONCE: Final = 50
"""How many jobs with a deadline one look asks about, which takes some 2 ms each; the others have their turn at the next ones."""

HEAR_WITHIN: Final = timedelta(minutes=1)
"""How long a job may take to see that it is asked to stop."""

_LOOKED_AT: Final = frozenset({LeaseState.RUNNING, LeaseState.MOVING})
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Moves:
    """Looks at running leases, and moves those that should be elsewhere. A look at one lease is due once in `LOOK`."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        quotes: Quotes,
        lookout: Lookout,
        backend: Callable[[str], Backend],
    ) -> None:
        self._ledger = ledger
        self._quotes = quotes
        self._lookout = lookout
        self._backend = backend
        self._tasks: dict[str, TaskSpec | None] = {}
        self._due_at: dict[str, datetime] = {}

    def look(self, leases: Iterable[Lease], said: Mapping[str, Heartbeat], now: datetime) -> None:
        """Ask jobs to save and stop that should go on elsewhere, or wait; stop those that were asked and did not.

        What keeps one of them from being asked is logged. It is asked again when it is due again.

        Args:
            leases: All that are watched: what is remembered of others is forgotten. Of those that are due, so many are looked at
                that a look stays short.
            said: What their jobs said last, by key.
            now: The moment of the look.
        """
        open_now = [lease for lease in leases if lease.state in _LOOKED_AT]
        self._forget_others({lease.key for lease in open_now})
        self._read_tasks(lease.key for lease in open_now)
        due = [lease for lease in open_now if self._is_due(lease.key, now)]
        view: View | None = None
        for lease in nsmallest(AT_ONCE, due, key=lambda lease: self._due_at.get(lease.key, _NEVER)):
            try:
                if lease.state is LeaseState.MOVING:
                    self._stop_if_overdue(lease, now)
                    continue
                # Read once; and again once a job is on its way to a slot, which is not for two.
                view = view or self._quotes.view(now, max_age=LOOK)
                if self._moves(lease, said.get(lease.key), view):
                    view = None
            except (BackendError, StoreError) as error:
                log.warning("whether %s should move could not be asked: %s", lease.key, error)

    def _forget_others(self, keys: set[str]) -> None:
        """Forget leases that nobody watches any more: they end in other processes, which tell nothing of it."""
        self._tasks = {key: task for key, task in self._tasks.items() if key in keys}
        self._due_at = {key: due for key, due in self._due_at.items() if key in keys}
        self._lookout.forget_others(keys)

    def _read_tasks(self, keys: Iterable[str]) -> None:
        """Read the tasks of new leases, as they were placed; None stands for one that is never moved."""
        new = [key for key in keys if key not in self._tasks]
        if new:
            timed = self._ledger.tasks_with_deadline(new)
            self._tasks |= {key: timed.get(key) for key in new}

    def _is_due(self, key: str, now: datetime) -> bool:
        task = self._tasks[key]
        return task is not None and has_time(task) and self._due_at.get(key, _NEVER) <= now

    def _moves(self, lease: Lease, said: Heartbeat | None, view: View) -> bool:
        """Ask the policy about a job that runs, and the job to stop if it should; return whether it was asked."""
        task, now = self._tasks[lease.key], view.now
        assert task is not None
        self._due_at[lease.key] = now + LOOK
        offers = view.offers(what_is_left(task, said))
        weighed = self._lookout.while_running(task, lease, said, offers, now)
        if isinstance(weighed, Silence):
            if weighed is Silence.NOT_YET:
                self._due_at[lease.key] = now
            return False
        better = goes_on_in(weighed)
        if better == lease.pool:
            return False
        self._ask(lease, weighed.decision.reason, now, moving_to=better)
        self._due_at[lease.key] = now
        return True

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
