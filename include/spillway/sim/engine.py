"""The simulation: from one event to the next, and what a policy answers is done.

At one instant, first jobs end, then capacity and prices change, then jobs arrive, then the policy is asked: about jobs that
run, in the order in which they came, and after them about those that hold nothing. So two runs of one scenario and one
policy are equal, and what happens to the pools is the same for every policy.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from spillway.ledger.accrual import cost
from spillway.model import CapacityBlock, Market, Offer, SlotInterval
from spillway.placement.cadence import checkpoint_interval
from spillway.placement.recovery import restart_overhead, undisturbed_work
from spillway.sim.course import LeaseCourse, Spent
from spillway.sim.outcome import Attempt, End, JobOutcome, Outcome
from spillway.sim.quotes import SimulatedQuotes
from spillway.sim.scenario import SimulatedJob
from spillway.sim.slots import PoolSlots
from spillway.sim.strategies import HeldLease, Question

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.sim.scenario import PriceChange, Scenario, SlotChange
    from spillway.sim.strategies import Strategy

GIVE_UP_AFTER: Final = timedelta(days=31)
"""How long after the end of the time simulated jobs that are still open are followed."""

Happening = Callable[[datetime], None]
_Event = tuple[datetime, int, int, Happening]

_NOTHING: Final = timedelta(0)
_LEAST_WORK: Final = timedelta(microseconds=1)


class _Rank(IntEnum):
    """What happens at one instant happens in this order."""

    FINISH = 0
    SLOT = 1
    PRICE = 2
    BLOCK_ENDS = 3
    LEFT = 4
    ARRIVAL = 5
    LOOK = 6


@dataclass(slots=True, kw_only=True)
class _Lease:
    offer: Offer
    granted_at: datetime
    course: LeaseCourse
    is_saved_on_notice: bool
    token: int
    leaving_since: datetime | None = None
    leaving_for: str | None = None


@dataclass(slots=True, kw_only=True)
class _Run:
    """One job under way."""

    index: int
    job: SimulatedJob
    able: frozenset[str]
    left: timedelta
    lease: _Lease | None = None
    attempts: int = 0
    held: timedelta = _NOTHING
    spent_usd: Decimal = Decimal(0)
    finished_at: datetime | None = None
    is_new: bool = True
    asked_at: datetime | None = None
    ask_from: datetime | None = None
    has_declined: bool = False


@dataclass(slots=True)
class _Round:
    """What the events of one instant leave to be decided.

    Attributes:
        waiting: Work of all jobs that hold nothing.
    """

    is_look: bool = False
    waiting: timedelta = _NOTHING
    opened: set[str] = field(default_factory=set)


def simulate(
    scenario: Scenario,
    strategy: Strategy,
    *,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Return what becomes of `scenario` under `strategy`, which must not have served before.

    Args:
        scenario: What is simulated.
        strategy: The policy.
        progress: Called now and then with the share of the jobs that is complete.
    """
    return _Simulation(scenario, strategy, progress).run()


class _Simulation:
    def __init__(
        self, scenario: Scenario, strategy: Strategy, progress: Callable[[float], None] | None
    ) -> None:
        self._scenario, self._strategy, self._progress = scenario, strategy, progress
        self._slots = {
            pool.name: PoolSlots(pool, scenario.start, counted=pool.name in scenario.counted)
            for pool in scenario.pools
        }
        self._quotes = SimulatedQuotes(self._slots)
        self._runs = [
            _Run(index=index, job=job, able=scenario.able[job.name], left=job.spec.work)
            for index, job in enumerate(scenario.jobs)
        ]
        self._running: dict[int, _Run] = {}
        self._waiting: dict[int, _Run] = {}
        self._attempts: list[Attempt] = []
        self._questions = 0
        self._tokens = 0
        self._complete = 0
        self._round = _Round()
        self._changed: set[str] = set()
        self._repriced: set[str] = set()
        self._look_at: datetime | None = None
        self._events: list[_Event] = list(self._foreseen())
        heapq.heapify(self._events)
        self._sequence = len(self._events)

    def run(self) -> Outcome:
        """Go on until every job is complete, or the simulation is given up."""
        last = self._scenario.end + GIVE_UP_AFTER
        now = self._scenario.start
        while self._events and self._complete < len(self._runs):
            if self._events[0][0] > last:
                break
            now = self._events[0][0]
            while self._events and self._events[0][0] == now:
                happen = heapq.heappop(self._events)[3]
                happen(now)
            self._decide(now)
        self._cut(last if self._complete < len(self._runs) else now)
        return Outcome(
            policy=self._strategy.name,
            scenario=self._scenario,
            jobs=tuple(self._job_outcome(run, last) for run in self._runs),
            attempts=tuple(self._attempts),
            questions=self._questions,
        )

    # ---- events -----------------------------------------------------------------------------------------------

    def _foreseen(self) -> Iterable[_Event]:
        """Yield what will happen whatever is decided."""
        scenario = self._scenario
        found: list[tuple[datetime, _Rank, Happening]] = []
        found += [
            (change.at, _Rank.SLOT, partial(self._change_slot, change))
            for change in scenario.outages
        ]
        found += [
            (change.at, _Rank.PRICE, partial(self._change_price, change))
            for change in scenario.prices
        ]
        found += [
            (run.job.arrives_at, _Rank.ARRIVAL, partial(self._arrive, run)) for run in self._runs
        ]
        found += [
            (pool.commitment.ends_at, _Rank.BLOCK_ENDS, partial(self._end_block, pool.name))
            for pool in scenario.pools
            if isinstance(pool.commitment, CapacityBlock)
        ]
        for sequence, (at, rank, happen) in enumerate(found):
            yield max(at, scenario.start), rank, sequence, happen

    def _push(self, at: datetime, rank: _Rank, happen: Happening) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (at, rank, self._sequence, happen))

    def _look(self, _now: datetime) -> None:
        self._round.is_look, self._look_at = True, None

    def _arrive(self, run: _Run, _now: datetime) -> None:
        self._waiting[run.index] = run

    def _finish(self, run: _Run, token: int, now: datetime) -> None:
        if run.lease is None or run.lease.token != token:
            return
        self._end(run, now, End.FINISHED)
        run.finished_at = now
        self._complete += 1
        self._strategy.forget(run.job.name)
        if self._progress is not None and self._complete % 100 == 0:
            self._progress(self._complete / len(self._runs))

    def _change_slot(self, change: SlotChange, now: datetime) -> None:
        slots = self._slots[change.pool]
        was_full = slots.free == 0
        loser = slots.change(change.slot, is_up=change.is_up)
        if loser is not None:
            self._preempt(self._runs[loser], now)
        if was_full and slots.free:
            self._open(change.pool)

    def _open(self, pool: str) -> None:
        self._round.opened.add(pool)
        self._changed.add(pool)

    def _change_price(self, change: PriceChange, _now: datetime) -> None:
        self._repriced.add(change.pool)
        slots = self._slots[change.pool]
        slots.pool = replace(slots.pool, list_usd_per_hour=change.usd_per_hour)

    def _end_block(self, pool: str, now: datetime) -> None:
        for run in [run for run in self._running.values() if _pool_of(run) == pool]:
            self._preempt(run, now)

    def _preempt(self, run: _Run, now: datetime) -> None:
        self._end(run, now, End.PREEMPTED)
        self._waiting[run.index] = run
        run.is_new = True

    def _leave_for_good(self, run: _Run, token: int, now: datetime) -> None:
        if run.lease is not None and run.lease.token == token:
            self._end(run, now, End.LEFT)
            self._waiting[run.index] = run
            run.is_new = True

    # ---- decisions --------------------------------------------------------------------------------------------

    def _decide(self, now: datetime) -> None:
        """Ask about every job for which something may have changed."""
        self._round.waiting = sum((run.left for run in self._waiting.values()), _NOTHING)
        if self._round.is_look and self._strategy.reconsiders:
            for run in [self._running[index] for index in sorted(self._running)]:
                if self._is_worth_asking(run, now):
                    self._reconsider(run, now)
        # Room that was given back while others were asked is for those that wait: what is to be asked is settled late.
        for index in sorted(self._waiting):
            run = self._waiting[index]
            # One that could have run and would rather wait is asked again when the others are looked at.
            opened = not run.has_declined and self._has_room(run.able & self._round.opened)
            due = run.is_new or opened
            due = due or (self._round.is_look and self._is_worth_asking(run, now))
            if due and run.asked_at != now:
                if self._has_room(run.able):
                    self._place(run, now)
                else:
                    run.has_declined = (
                        False  # it would be told to take what comes, if it were asked
                    )
            run.is_new = False
        if self._round.is_look:
            self._changed.clear()
            self._repriced.clear()
        self._round = _Round()
        self._plan_look(now)

    def _is_worth_asking(self, run: _Run, now: datetime) -> bool:
        """Whether a pool of the job has room again or another price, its deadline is near, or it was not asked for long.

        Room that has opened and that others have taken before is nothing to ask about.
        """
        if run.ask_from is None or now >= run.ask_from:
            return True
        if not run.able.isdisjoint(self._repriced):
            return True
        return self._has_room(run.able & self._changed)

    def _has_room(self, pools: frozenset[str]) -> bool:
        return any(self._slots[pool].free for pool in pools)

    def _plan_look(self, now: datetime) -> None:
        wanted = self._waiting or (self._running and self._strategy.reconsiders)
        if wanted and self._look_at is None:
            look, start = self._scenario.look, self._scenario.start
            self._look_at = start + ((now - start) // look + 1) * look
            self._push(self._look_at, _Rank.LOOK, self._look)

    def _place(self, run: _Run, now: datetime) -> None:
        question = self._question(run, now)
        pool = self._strategy.answer(question)
        run.has_declined = pool is None
        if pool is not None:
            self._grant(run, _offer(question, pool), now)

    def _reconsider(self, run: _Run, now: datetime) -> None:
        lease = run.lease
        assert lease is not None  # it is running
        left = lease.course.length - (now - lease.granted_at)
        write = run.job.spec.checkpoint_write
        if lease.leaving_since is not None or left <= write:
            return
        question = self._question(run, now)
        pool = self._strategy.answer(question)
        if pool == lease.offer.pool:
            return
        at_risk = lease.course.spent(now - lease.granted_at).at_risk
        if run.job.spec.checkpoints and at_risk > _NOTHING and write > _NOTHING:
            lease.leaving_since, lease.leaving_for = now, pool
            if pool is not None:
                self._slots[pool].promised += 1
            self._push(now + write, _Rank.LEFT, partial(self._leave_for_good, run, lease.token))
            return
        lease.leaving_since = now
        self._end(run, now, End.LEFT)
        self._waiting[run.index] = run
        if pool is not None:
            self._grant(run, _offer(question, pool), now)

    def _question(self, run: _Run, now: datetime) -> Question:
        self._questions += 1
        run.asked_at = now
        job, lease = run.job, run.lease
        left, held, spent_usd = run.left, None, run.spent_usd
        if lease is not None:
            spent = lease.course.spent(now - lease.granted_at)
            speed = lease.offer.speed
            left = max(run.left - (spent.kept + spent.at_risk) * speed, _LEAST_WORK)
            spent_usd += _added_usd(run, now + self._scenario.look)  # when it may have left
            held = HeldLease(
                offer=lease.offer,
                restart_left=lease.course.restart - spent.restart,
                at_risk=spent.at_risk * speed,
                checkpoint_interval=lease.course.interval,
                is_saved_on_notice=lease.is_saved_on_notice,
            )
        spec = job.spec
        if left != spec.work or spent_usd:
            spec = replace(spec, work=left, spent_usd=spent_usd)
        run.ask_from = self._ask_from(run, left, now)
        return Question(
            job=job.name,
            now=now,
            arrived_at=job.arrives_at,
            spec=spec,
            work=job.spec.work,
            look=self._scenario.look,
            quote=lambda: self._quotes.offers(spec, run.able, now),
            foresee=lambda until, planned: self._quotes.room_ahead(
                self._held(run.able, now), planned, now, until
            ),
            held=held,
        )

    def _held(self, pools: frozenset[str], now: datetime) -> dict[str, list[SlotInterval]]:
        """Return the leases open on each of `pools`, with their expected ends."""
        held: dict[str, list[SlotInterval]] = {pool: [] for pool in pools}
        for run in self._running.values():
            lease = run.lease
            if lease is not None and lease.offer.pool in held:
                end = max(lease.granted_at + lease.course.length, now)
                held[lease.offer.pool].append(
                    SlotInterval(start=lease.granted_at, end=end, is_open=True)
                )
        return held

    def _ask_from(self, run: _Run, left: timedelta, now: datetime) -> datetime:
        """Return from when on the job is asked about again even if nothing changes: every look once its slack is small."""
        patience, deadline = self._scenario.patience, run.job.spec.deadline
        if deadline is None:
            return now + patience
        slowest = min(self._slots[pool].pool.speed for pool in run.able)
        slack = deadline - now - left / slowest - self._queue(run.able)
        comfort = 2 * (patience + run.job.spec.restart_overhead)
        return now + patience if slack > comfort else now

    def _queue(self, pools: frozenset[str]) -> timedelta:
        """Return how long the steady slots of `pools` are busy with all that waits: when its turn comes, a job is asked in time."""
        steady = [self._slots[pool].pool for pool in pools]
        slots = sum(pool.slots for pool in steady if pool.market is not Market.SPOT)
        return self._round.waiting / max(slots, 1)

    # ---- leases -----------------------------------------------------------------------------------------------

    def _grant(self, run: _Run, offer: Offer, now: datetime) -> None:
        spec = replace(run.job.spec, work=run.left)
        self._tokens += 1
        interval = None
        if spec.checkpoints:
            interval = checkpoint_interval(spec.checkpoint_write, offer.preemptions_per_hour)
        course = LeaseCourse(
            restart=restart_overhead(spec, offer),
            work=undisturbed_work(spec, offer),
            interval=interval,
            write=spec.checkpoint_write,
        )
        run.lease = _Lease(
            offer=offer,
            granted_at=now,
            course=course,
            is_saved_on_notice=spec.checkpoints and offer.grace_period >= spec.checkpoint_write,
            token=self._tokens,
        )
        run.attempts += 1
        self._slots[offer.pool].take(run.index, now)
        del self._waiting[run.index]
        self._running[run.index] = run
        self._push(now + course.length, _Rank.FINISH, partial(self._finish, run, self._tokens))

    def _end(self, run: _Run, now: datetime, end: End) -> None:
        """Close the books of the job's lease, and keep what was saved of its work."""
        lease = run.lease
        assert lease is not None  # it runs
        if lease.leaving_for is not None:
            self._slots[lease.leaving_for].promised -= 1
        spent = _spent(lease, now)
        kept = spent.kept
        saved = end in (End.FINISHED, End.LEFT) or (end is not End.CUT and lease.is_saved_on_notice)
        if saved and (run.job.spec.checkpoints or end is End.FINISHED):
            kept += spent.at_risk
        run.left = max(run.left - kept * lease.offer.speed, _LEAST_WORK)
        run.held += now - lease.granted_at
        run.spent_usd += _added_usd(run, now)
        attempt = Attempt(
            job=run.job.name,
            number=run.attempts,
            pool=lease.offer.pool,
            market=lease.offer.market,
            backend=lease.offer.backend,
            granted_at=lease.granted_at,
            ended_at=now,
            end=end,
            restart=spent.restart,
            writing=spent.writing,
            useful=kept,
            lost=spent.kept + spent.at_risk - kept,
            marginal_usd_per_hour=lease.offer.marginal_usd_per_hour,
            effective_usd_per_hour=lease.offer.effective_usd_per_hour,
            list_usd_per_hour=lease.offer.list_usd_per_hour,
        )
        self._attempts.append(attempt)
        self._quotes.note(attempt)
        run.lease = None
        del self._running[run.index]
        slots = self._slots[attempt.pool]
        was_full = slots.free == 0
        slots.give_back(run.index, now)
        if was_full and slots.free:
            self._open(attempt.pool)

    def _cut(self, now: datetime) -> None:
        for index in sorted(self._running):
            self._end(self._running[index], now, End.CUT)

    def _job_outcome(self, run: _Run, last: datetime) -> JobOutcome:
        until = run.finished_at or last
        return JobOutcome(
            name=run.job.name,
            arrived_at=run.job.arrives_at,
            deadline=run.job.spec.deadline,
            finished_at=run.finished_at,
            waiting=until - run.job.arrives_at - run.held,
        )


def _spent(lease: _Lease, now: datetime) -> Spent:
    """Return what the lease went into; from when it is being left, it only writes its last checkpoint."""
    if lease.leaving_since is None:
        return lease.course.spent(now - lease.granted_at)
    spent = lease.course.spent(lease.leaving_since - lease.granted_at)
    return replace(spent, writing=spent.writing + (now - lease.leaving_since))


def _added_usd(run: _Run, until: datetime) -> Decimal:
    """Return what the lease of a job with a budget adds to the bill `until` then, in US dollars."""
    lease = run.lease
    if lease is None or run.job.spec.max_cost_usd is None:
        return Decimal(0)
    usd, since = lease.offer.marginal_usd_per_hour, lease.granted_at
    return cost(usd, since=since, start=since, end=until)


def _offer(question: Question, pool: str) -> Offer:
    return next(offer for offer in question.offers if offer.pool == pool)


def _pool_of(run: _Run) -> str | None:
    return None if run.lease is None else run.lease.offer.pool
