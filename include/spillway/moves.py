"""Moving a job that runs: asking the policy over time about it, and asking the job to save and stop."""

from __future__ import annotations

import logging
import math
from collections import deque
from datetime import UTC, datetime, timedelta
from heapq import nsmallest
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import Backend, Job
from spillway.checkpoints.open import open_store
from spillway.errors import BackendError, StoreError
from spillway.lookout import Silence
from spillway.model import JobEvent, LeaseState
from spillway.placement.leaving import leaving
from spillway.placement.over_time import LOOK, has_time, what_is_left
from spillway.runtime.stop_request import StopRequest, ask_to_stop, read_stop_request

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from spillway.ledger import Ledger
    from spillway.lookout import Lookout
    from spillway.model import Heartbeat, Lease, Move, TaskSpec
    from spillway.quotes import Quotes, View

log = logging.getLogger(__name__)

AT_ONCE: Final = 50
"""How many jobs with a deadline one look asks about, which takes some 2 ms each; the others have their turn at the next ones."""

HEAR_WITHIN: Final = timedelta(minutes=1)
"""How long a job may take to see that it is asked to stop."""

_LOOKED_AT: Final = frozenset({LeaseState.RUNNING, LeaseState.MOVING})
_PAUSES: Final = 5
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Moves:
    """Looks at running leases, and moves those that should be elsewhere.

    Each is asked about once in `LOOK`, or as often as it can be kept up, which is what the policy then reckons with.
    """

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
        self._looked_at: dict[str, datetime] = {}
        self._at_each_look: set[str] = set()
        self._looks: deque[datetime] = deque(maxlen=1 + _PAUSES)

    def look(
        self,
        leases: Iterable[Lease],
        said: Mapping[str, Heartbeat],
        now: datetime,
        *,
        unheard: Collection[str] = (),
    ) -> None:
        """Ask jobs to save and stop that should go on elsewhere, or wait; stop those that were asked and did not.

        What keeps one of them from being asked is logged. It is asked again when it is due again.

        Args:
            leases: All that are watched: what is remembered of others is forgotten. Of those that are due, so many are looked at
                that a look stays short.
            said: What their jobs said last, by key.
            now: The moment of the look.
            unheard: Keys of those whose last words could not be read. That is not to have done nothing: they stay where they are.
        """
        open_now = [lease for lease in leases if lease.state in _LOOKED_AT]
        self._forget_others({lease.key for lease in open_now})
        self._read_tasks(lease.key for lease in open_now)
        self._looks.append(now)
        pauses = [after - before for before, after in pairwise(self._looks)]
        heard = [
            one for one in open_now if one.state is LeaseState.MOVING or one.key not in unheard
        ]
        due = [lease for lease in heard if self._is_due(lease.key, now, usual_pause(pauses))]
        next_look = pace_kept(pauses, jobs=sum(self._has_time(lease.key) for lease in open_now))
        view: View | None = None
        for lease in nsmallest(AT_ONCE, due, key=self._last_look):
            self._looked_at[lease.key] = now
            try:
                if lease.state is LeaseState.MOVING:
                    self._stop_if_overdue(lease, now)
                    continue
                # Read once; and again once a job is on its way to a slot, which is not for two.
                view = view or self._quotes.view(now, max_age=LOOK)
                if self._moves(lease, said.get(lease.key), view, next_look):
                    view = None
            except (BackendError, StoreError) as error:
                log.warning("whether %s should move could not be asked: %s", lease.key, error)

    def _forget_others(self, keys: set[str]) -> None:
        """Forget leases that nobody watches any more: they end in other processes, which tell nothing of it."""
        self._tasks = {key: task for key, task in self._tasks.items() if key in keys}
        self._looked_at = {key: at for key, at in self._looked_at.items() if key in keys}
        self._at_each_look &= keys
        self._lookout.forget_others(keys)

    def _read_tasks(self, keys: Iterable[str]) -> None:
        """Read the tasks of new leases, as they were placed; None stands for one that is never moved."""
        new = [key for key in keys if key not in self._tasks]
        if new:
            timed = self._ledger.tasks_with_deadline(new)
            self._tasks |= {key: timed.get(key) for key in new}

    def _has_time(self, key: str) -> bool:
        task = self._tasks[key]
        return task is not None and has_time(task)

    def _is_due(self, key: str, now: datetime, pause: timedelta) -> bool:
        """Whether the job is to be asked about: if not now, then it would be too late at the next look."""
        if not self._has_time(key):
            return False
        since = now - self._looked_at.get(key, _NEVER)
        return since >= LOOK or since + pause > LOOK or key in self._at_each_look

    def _last_look(self, lease: Lease) -> datetime:
        return self._looked_at.get(lease.key, _NEVER)

    def _moves(
        self, lease: Lease, said: Heartbeat | None, view: View, next_look: timedelta
    ) -> bool:
        """Ask the policy about a job that runs, and the job to stop if it should; return whether it was asked."""
        task, now = self._tasks[lease.key], view.now
        assert task is not None
        left = what_is_left(task, lease, said, now)
        offers = view.offers(left)
        weighed = self._lookout.while_running(task, lease, said, offers, now, next_look=next_look)
        self._at_each_look.discard(lease.key)
        if isinstance(weighed, Silence):
            if weighed is Silence.NOT_YET:
                self._at_each_look.add(lease.key)
            return False
        move = leaving(left, offers, weighed, now)
        if move is None:
            return False
        self._ask(lease, move)
        self._at_each_look.add(lease.key)
        return True

    def _ask(self, lease: Lease, move: Move) -> None:
        now, reason = move.decided_at, move.reason
        stop_by = now + HEAR_WITHIN + lease.submission.grace_period
        request = StopRequest(token=lease.token, reason=reason, asked_at=now, stop_by=stop_by)
        ask_to_stop(open_store(lease.submission.store), lease.submission.prefix, request)
        self._ledger.record(lease.key, JobEvent.ASKED_TO_MOVE, now=now, detail=reason, move=move)
        log.info("lease asked to move: %s: %s", lease.key, reason)

    def _stop_if_overdue(self, lease: Lease, now: datetime) -> None:
        """Stop a job that was asked and did not: what it has not saved is done again."""
        store = open_store(lease.submission.store)
        asked = read_stop_request(store, lease.submission.prefix, lease.token)
        if asked is None or now > asked.stop_by:
            self._backend(lease.pool).release(Job(key=lease.key, provider_id=lease.provider_id))
            self._ledger.record(lease.key, JobEvent.PREEMPTED, now=now, detail=lease.detail)


def usual_pause(pauses: Sequence[timedelta]) -> timedelta:
    """Return the longest of the last `pauses` between looks but one: a single outage is not how looks usually come."""
    return sorted([timedelta(0), *pauses])[-2] if len(pauses) > 1 else sum(pauses, timedelta(0))


def pace_kept(pauses: Sequence[timedelta], *, jobs: int) -> timedelta:
    """Return how long it takes until each of so many jobs was asked about, at `AT_ONCE` a look.

    It is `LOOK`, or that times a power of two: each pace has value tables of its own, which are not to change at every look.
    """
    kept = math.ceil(jobs / AT_ONCE) * usual_pause(pauses)
    return LOOK if kept <= LOOK else LOOK * 2 ** math.ceil(math.log2(kept / LOOK) - 1e-9)
