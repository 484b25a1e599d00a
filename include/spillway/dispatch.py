"""Where decisions meet the world: place, lease, submit, observe, settle. Read this first.

A task's attempts follow one another inside `Dispatcher.begin` and `Dispatcher.advance`. Both may be called again, by any
process, at any time: whatever they start outside is named in the ledger before it is started, so the next call finds it.

    begin ──▶ adopt what an earlier call left, or launch
    launch ─▶ offers ─▶ weigh or choose ─▶ grant ─▶ submit ─▶ Running
    advance ▶ observe ─▶ Running | settle ─▶ Finished, begin again after a preemption, or TaskFailedError
    reconsider ▶ weigh ─▶ go on, or ask the job to save and stop, and so to be placed again
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import JsonValue

from spillway.backends.protocol import (
    Backend,
    Job,
    LogChunk,
    SupportsLogs,
)
from spillway.catalog.store_place import UNKNOWN_PLACE, StorePlace
from spillway.catalog.value_tables import ValueTables
from spillway.checkpoints.layout import claimed_tokens
from spillway.checkpoints.open import open_store
from spillway.errors import (
    BackendError,
    CapacityError,
    LedgerError,
    NoOfferError,
    PoolFullError,
    SpecError,
    StoreError,
    TaskFailedError,
    TransientError,
)
from spillway.heard import Heard
from spillway.ledger import LeaseRequest
from spillway.lookout import Lookout
from spillway.model import (
    JobEvent,
    Lease,
    LeaseState,
    Observation,
    Placement,
    Pool,
    TaskKey,
    TaskSpec,
    Unplaced,
)
from spillway.moves import Moves
from spillway.placement.explain import reasons_table
from spillway.placement.lifecycle import is_final, move
from spillway.placing import Placing
from spillway.quotes import Quotes
from spillway.runtime.heartbeats import retire_heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from spillway.ledger import Ledger
    from spillway.model import Heartbeat

log = logging.getLogger(__name__)

WAIT_FOR_ROOM = timedelta(seconds=15)
"""How long a task for which no pool has room waits before it asks again."""

_LOST = frozenset({LeaseState.PREEMPTED, LeaseState.VANISHED})
"""Ends that are the pool's doing; the task goes on elsewhere."""

_GOES_ON = _LOST | {LeaseState.MOVED}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """One task instance that wants to run.

    Attributes:
        owner_try: Airflow's try that asks; it answers for the lease from then on.
        owner_clear: Which life of the task asks; grows with each clear. A lease of another life is cancelled, not adopted.
        fresh_start: Whether to ignore checkpoints of earlier leases.
    """

    task: TaskKey
    spec: TaskSpec
    owner_try: int = 1
    owner_clear: int = 0
    fresh_start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job is at work on the lease."""

    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """No pool has room now, and one would do if it had."""

    unplaced: Unplaced
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The task is complete, its lease settled."""

    lease: Lease
    result: JsonValue


Step = Running | Waiting | Finished


class Dispatcher:
    """Carries tasks over the pools of one deployment. Holds no state of its own beside its clients."""

    def __init__(
        self,
        *,
        pools: Iterable[Pool],
        ledger: Ledger,
        store_url: str,
        backend_of: Callable[[Pool], Backend],
        store_place: StorePlace = UNKNOWN_PLACE,
        tables: ValueTables | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self.ledger = ledger
        self._store_url = store_url
        self._backend_of = backend_of
        self._backends: dict[str, Backend] = {}
        self._clock = clock
        provider = store_place.place.provider if store_place.place else None
        self._heard = Heard(ledger, store_provider=provider)
        tables = tables or ValueTables()
        self.quotes = Quotes(
            pools=self.pools,
            ledger=ledger,
            backend=self.backend,
            store_place=store_place,
            aside=tables.aside,
        )
        lookout = Lookout(ledger, tables)
        self._placing = Placing(self.quotes, lookout)
        self._moves = Moves(
            ledger=ledger, quotes=self.quotes, lookout=lookout, backend=self.backend
        )

    # ---- placing ----------------------------------------------------------------------------------------------

    def place(
        self, spec: TaskSpec, refused: Collection[str] = (), *, asking: TaskKey | None = None
    ) -> Placement | Unplaced:
        """Return where `spec` would go now, and why; the pools of `refused` have just shown that they have no room.

        `asking` is whose it is: what other tasks wait for is left to them.
        """
        return self._placing.place(spec, self._clock(), refused, asking=asking)

    def begin(self, request: TaskRequest) -> Step:
        """Start the task, or go on with what an earlier call began.

        Raises:
            NoOfferError: No pool can take the task, whatever room they had.
            TaskFailedError: A job that an earlier call began has failed since, or the attempts are used up.
            LedgerError: A newer try, or one after a clear, answers for the task.
            BackendError: The provider did not do as asked. Call again: nothing is started twice.
        """
        last = next(iter(reversed(self.ledger.attempts(request.task))), None)
        if last is None:
            return self.launch(request)
        same_life = last.owner_clear == request.owner_clear
        if last.ended_at is None:
            _check_not_replaced(request, last)
            if same_life and last.state is not LeaseState.CANCELLED:
                return self._adopt(last, request)
            self.cancel(last.key, detail="the task was cleared")
            self.settle(self.ledger.lease(last.key))  # whoever ended it may have died before this
        elif same_life and last.state is LeaseState.SUCCEEDED:
            return self._finish(last)  # the process that settled it died before it could say so
        return self.launch(request)

    def launch(self, request: TaskRequest) -> Step:
        """Place the task, lease the capacity and start the job.

        Raises:
            NoOfferError: No pool can take the task, whatever room they had.
            TaskFailedError: The attempts of this try are used up.
            BackendError: The provider did not do as asked.
        """
        self._check_attempts_left(request)
        spec = self._left_to_do(request)
        refused: set[str] = set()
        while True:
            decision = self.place(spec, refused, asking=request.task)
            if isinstance(decision, Unplaced):
                return self._wait(request, decision)
            pool = decision.offer.pool
            try:
                return Running(lease=self._submit(self._grant(request, decision)))
            except (PoolFullError, CapacityError) as error:
                log.info("pool had no room after all: %s: %s", pool, error)
                refused.add(pool)

    def _left_to_do(self, request: TaskRequest) -> TaskSpec:
        """Return the task without the work that a checkpoint of an earlier lease has saved, and with what those cost."""
        attempts = [
            attempt
            for attempt in reversed(self.ledger.attempts(request.task))
            if not request.fresh_start or attempt.owner_clear == request.owner_clear
        ]
        spec = replace(request.spec, work=self._heard.work_left(request.spec.work, attempts))
        if spec.max_cost_usd is None:
            return spec
        spent = self.ledger.added_to_bill([attempt.key for attempt in attempts])
        return replace(spec, spent_usd=spent)

    def _grant(self, request: TaskRequest, decision: Placement) -> Lease:
        pool = self.pools[decision.offer.pool]
        lease = self.ledger.grant(
            LeaseRequest(
                task=request.task,
                spec=request.spec,
                placement=decision,
                owner_try=request.owner_try,
                owner_clear=request.owner_clear,
                store=self._store_url,
                prefix=store_prefix(request.task),
                grace_period=pool.grace_period,
                fresh_start=request.fresh_start and not self._has_begun(request),
            ),
            slots=pool.slots,
            now=self._clock(),
        )
        log.info("lease granted: %s on %s: %s", lease.key, pool.name, decision.reason)
        return lease

    def _has_begun(self, request: TaskRequest) -> bool:
        """Whether an earlier lease of this life began at the task's beginning, so that its checkpoints count.

        One that was refused, or lost before its job looked for a checkpoint, left those of the earlier life in place.
        """
        begun = claimed_tokens(open_store(self._store_url), store_prefix(request.task))
        return any(
            attempt.token in begun
            for attempt in self.ledger.attempts(request.task)
            if attempt.owner_clear == request.owner_clear
        )

    def _submit(self, lease: Lease) -> Lease:
        """Start the lease's job; a provider that refuses it leaves no lease open."""
        try:
            job = self.backend(lease.pool).submit(lease.submission)
        except TransientError:
            raise  # perhaps it started: the lease stays open, and whoever comes next submits the same key
        except BackendError as error:
            self._close(lease, JobEvent.CANCELLED, detail=str(error))
            if isinstance(error, CapacityError):
                self.ledger.note_refusal(lease.pool, now=self._clock())
            raise
        submitted = self.ledger.record(
            lease.key, JobEvent.SUBMITTED, now=self._clock(), provider_id=job.provider_id
        )
        if is_final(submitted.state):  # somebody cancelled it between the grant and the job's start
            self.backend(lease.pool).release(job)
        return submitted

    def _wait(self, request: TaskRequest, unplaced: Unplaced) -> Waiting:
        now = self._clock()
        table = reasons_table(unplaced)
        if not unplaced.can_wait:
            self.ledger.forget_waiting(request.task)
            raise NoOfferError(
                f"no pool can take {request.task}; relax the task or add a pool:\n{table}",
                reasons={passed.offer.pool: passed.reason for passed in unplaced.passed_over},
                can_wait=False,
            )
        until = unplaced.until or now + WAIT_FOR_ROOM
        self.ledger.note_waiting(request.task, unplaced, until=until, now=now)
        log.info("%s: %s:\n%s", request.task, unplaced.reason or "no pool has room now", table)
        return Waiting(unplaced=unplaced, until=until)

    # ---- watching ---------------------------------------------------------------------------------------------

    def observe(self, pool: str, leases: Sequence[Lease]) -> Mapping[str, Observation]:
        """Ask the pool's provider for all `leases` at once, and write down what is new.

        Raises:
            TransientError: The provider could not be asked, which says nothing of the jobs.
        """
        observations = self.backend(pool).observe([_job(lease) for lease in leases])
        for lease in leases:
            observation = observations[lease.key]
            event = observation.event
            if event is not None and move(lease.state, event) is not lease.state:
                self._record(lease, observation)
        return observations

    def reconsider(
        self,
        leases: Iterable[Lease],
        said: Mapping[str, Heartbeat],
        *,
        unheard: Collection[str] = (),
    ) -> None:
        """Ask the policy over time whether jobs should go on, and move those that should not; call it at every observation.

        What keeps one of them from being moved is logged, and keeps nobody from watching. It is asked again later.

        Args:
            leases: All that are watched, whatever their state; what is remembered of others is forgotten.
            said: What their jobs said last, by key.
            unheard: Keys of those whose last words could not be read; they are asked about once they can.
        """
        self._moves.look(leases, said, self._clock(), unheard=unheard)

    def advance(self, request: TaskRequest, key: str) -> Step:
        """Look at the lease `key` once and do what follows: nothing, settle, or settle and begin again.

        Repeats safely: where an earlier call placed the task again and died, this one goes on with that.

        Raises:
            TaskFailedError: The user's code failed, or the attempts are used up.
            NoOfferError: It was preempted, and no pool can take it any more.
            BackendError: The provider did not do as asked.
        """
        lease = self.ledger.lease(key)
        if lease.ended_at is None and not is_final(lease.state):
            self.observe(lease.pool, [lease])
            lease = self.ledger.lease(key)
        if not is_final(lease.state):
            return Running(lease=lease)
        lease = self.settle(lease)
        if lease.state is LeaseState.SUCCEEDED:
            return self._finish(lease)
        if lease.state in _GOES_ON:
            log.warning("lease %s: %s: %s; placing again", lease.state, key, lease.detail)
            return self.begin(request)
        raise self._failure(lease)

    def heartbeat(self, lease: Lease) -> Heartbeat | None:
        """Return the last thing the task itself said, or None when it said nothing yet."""
        return self._heard.heartbeat(lease)

    def read_log(self, lease: Lease, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on; empty where the provider has none to show."""
        backend = self.backend(lease.pool)
        if isinstance(backend, SupportsLogs):
            return backend.read_log(_job(lease), offset)
        return LogChunk(text="", next_offset=offset)

    # ---- ending -----------------------------------------------------------------------------------------------

    def settle(self, lease: Lease) -> Lease:
        """Give the capacity of a lease in a final state back, and close its books. Repeats safely."""
        if lease.ended_at is not None:
            return lease
        self.backend(lease.pool).release(_job(lease))
        self._heard.learn(
            lease
        )  # before its end: a process that dies in between is followed by one that comes here again
        settled = self.ledger.end(lease.key, now=self._clock())
        with suppress(StoreError):  # it is found where a killed job left it, too
            submission = settled.submission
            retire_heartbeat(open_store(submission.store), submission.prefix, submission.token)
        log.info("lease settled: %s %s", settled.key, settled.state)
        return settled

    def cancel(self, key: str, *, detail: str, owner_try: int | None = None) -> bool:
        """Stop the job of lease `key`; return whether this call did.

        With `owner_try`, only while that try answers for the lease: a try that was replaced cannot kill what its
        successor has adopted.
        """
        if not self.ledger.cancel(key, owner_try=owner_try, now=self._clock(), detail=detail):
            return False
        log.info("lease cancelled: %s: %s", key, detail)
        self.settle(self.ledger.lease(key))
        return True

    def cancel_task(self, task: TaskKey, *, detail: str) -> bool:
        """Stop whatever runs for `task`; return whether something did."""
        self.ledger.forget_waiting(task)
        lease = self.ledger.open_lease(task)
        return lease is not None and self.cancel(lease.key, detail=detail)

    # ---- steps of the above -----------------------------------------------------------------------------------

    def _adopt(self, lease: Lease, request: TaskRequest) -> Step:
        adopted = self.ledger.adopt(
            lease.key, owner_try=request.owner_try, owner_clear=request.owner_clear
        )
        if adopted is None:
            raise LedgerError(
                f"{lease.key} was taken over by a newer try, or ended, while try {request.owner_try} "
                "looked; the newer one goes on"
            )
        log.info("lease adopted by try %d: %s", request.owner_try, lease.key)
        if lease.state is LeaseState.GRANTED:
            with suppress(CapacityError):
                return Running(lease=self._submit(lease))
            return self.launch(request)
        return self.advance(request, lease.key)

    def _finish(self, lease: Lease) -> Finished:
        return Finished(lease=lease, result=self._heard.value(lease))

    def _failure(self, lease: Lease) -> TaskFailedError:
        is_known = lease.pool in self.pools  # it may have left the file since the job ended
        shows_output = is_known and isinstance(self.backend(lease.pool), SupportsLogs)
        return self._heard.failure(lease, shows_output=shows_output)

    def _check_attempts_left(self, request: TaskRequest) -> None:
        lost = [
            attempt
            for attempt in self.ledger.attempts(request.task)
            if attempt.state in _LOST
            and (attempt.owner_try, attempt.owner_clear) == (request.owner_try, request.owner_clear)
        ]
        if len(lost) >= request.spec.max_attempts:
            last = lost[-1]
            raise TaskFailedError(
                f"{request.task} lost {len(lost)} leases, the last on {last.pool}: {last.detail}; "
                "raise max_attempts or allow a market that does not preempt",
                key=last.key,
                exit_code=last.exit_code,
            )

    def _close(self, lease: Lease, event: JobEvent, *, detail: str) -> None:
        self.ledger.record(lease.key, event, now=self._clock(), detail=detail)
        self.ledger.end(lease.key, now=self._clock())

    def _record(self, lease: Lease, observation: Observation) -> None:
        assert observation.event is not None
        self.ledger.record(
            lease.key,
            observation.event,
            now=observation.seen_at,
            exit_code=observation.exit_code,
            # Why it was to move says more than how it stopped.
            detail=lease.detail if lease.state is LeaseState.MOVING else observation.detail,
        )

    def backend(self, pool: str) -> Backend:
        """Return the backend of the pool called `pool`.

        Raises:
            SpecError: It is not in the pools file, or its options have a mistake.
        """
        if pool not in self.pools:
            raise SpecError(
                f"pool {pool!r} is not in the pools file any more, but a lease on it is open; put it back "
                "until the lease has ended"
            )
        if pool not in self._backends:
            self._backends[pool] = self._backend_of(self.pools[pool])
        return self._backends[pool]


def _check_not_replaced(request: TaskRequest, lease: Lease) -> None:
    if request.owner_try < lease.owner_try:  # Airflow counts tries on over a clear
        raise LedgerError(
            f"try {request.owner_try} of {request.task} was replaced by try {lease.owner_try}, which holds {lease.key}; "
            "the newer one goes on"
        )


def store_prefix(task: TaskKey) -> str:
    """Return where below the checkpoint store the task keeps its checkpoints, heartbeats and results."""
    return f"{task.dag_id}/{task.run_id}/{task.task_id}/{task.map_index}"


def _job(lease: Lease) -> Job:
    return Job(key=lease.key, provider_id=lease.provider_id)
