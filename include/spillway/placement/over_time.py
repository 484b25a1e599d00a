"""The policy over time in the words of placement: from tasks, offers and heartbeats to what it weighs, and back.

It speaks for tasks that have a deadline and save checkpoints. Without a deadline there is nothing to wait for, and what
cannot be saved cannot be moved: such tasks go where `choose` sends them, and stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from spillway.model import (
    Heartbeat,
    Lease,
    Market,
    Offer,
    PassedOver,
    Placement,
    TaskSpec,
    Unplaced,
)
from spillway.model.codec import encode
from spillway.placement.cadence import checkpoint_interval
from spillway.placement.choose import choose, residency_evidence
from spillway.placement.estimate import estimate
from spillway.placement.explain import usd
from spillway.placement.feasible import refusal
from spillway.placement.policy import decide
from spillway.placement.policy_values import (
    Decision,
    Held,
    JobProgress,
    Option,
    PolicyState,
    PoolView,
)
from spillway.placement.price import hours
from spillway.placement.recovery import restart_overhead
from spillway.placement.transfer import restore_time
from spillway.placement.value_table import TableSpec
from spillway.placement.weighing import fallback_of, last_resorts, start_before

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spillway.placement.availability import AvailabilityModel
    from spillway.placement.value_table import ValueTable

LOOK: Final = timedelta(minutes=1)
"""Time between two decisions about one job."""

LEAST_SAVING_USD: Final = 0.001
LEAST_SAVING: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One job and its pools at one moment, as the policy sees them: all that it is asked with.

    Attributes:
        state: What the policy remembered.
        spec: The value table that it looked into.
    """

    job: JobProgress
    pools: tuple[PoolView, ...]
    now: datetime
    state: PolicyState
    spec: TableSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """A situation, and what the policy answered and remembers."""

    situation: Situation
    decision: Decision
    state: PolicyState


def has_time(task: TaskSpec) -> bool:
    """Whether the policy over time has anything to decide for `task`."""
    return task.deadline is not None and task.checkpoints


def weigh(situation: Situation, *, table: ValueTable, model: AvailabilityModel) -> Weighed:
    """Return what the policy answers in `situation`; equal situations have equal answers."""
    decision, state = decide(
        situation.job,
        situation.pools,
        situation.now,
        situation.state,
        table=table,
        model=model,
    )
    return Weighed(situation=situation, decision=decision, state=state)


def wait_until(situation: Situation) -> datetime | None:
    """Return until when the job may hold nothing, so that steady capacity can still make its deadline; None for ever."""
    job = situation.job
    if job.deadline is None:
        return None
    resorts = last_resorts(situation.pools, job, situation.now)
    needed = timedelta(hours=min(start_before(pool, job) for pool in resorts))
    return job.deadline - job.work_left - needed - job.queue - job.next_look


# ---- what it is asked with ------------------------------------------------------------------------------------


def usable_offers(
    task: TaskSpec, offers: Iterable[Offer], now: datetime, *, held: str | None = None
) -> list[tuple[Offer, bool]]:
    """Return the offers that `task` may take, now or once they have room, and whether they have it; by pool name.

    Args:
        task: The task.
        offers: One of each pool.
        now: When they were made.
        held: The pool that the job runs on, which has room for it whatever its offer says.
    """
    found: list[tuple[Offer, bool]] = []
    for offer in sorted(offers, key=lambda offer: offer.pool):
        no = refusal(task, offer, now)
        if no is None or no.can_wait or offer.pool == held:
            found.append((offer, no is None or offer.pool == held))
    return found


def pool_views(
    task: TaskSpec, usable: Sequence[tuple[Offer, bool]], *, moved_gib: float = 0.0
) -> tuple[PoolView, ...]:
    """Return how the policy sees the offers that `task` may take; prices are for all its nodes.

    Args:
        task: The task.
        usable: As `usable_offers` returns them.
        moved_gib: What each start of a node reads out of the checkpoint store.
    """
    return tuple(
        PoolView(
            name=offer.pool,
            market=offer.market,
            usd_per_hour=float(offer.marginal_usd_per_hour) * task.nodes,
            available=has_room,
            extra_restart=offer.restart_overhead + restore_time(moved_gib, offer),
            move_usd=moved_gib * float(offer.restore_usd_per_gib) * task.nodes,
            ends_at=offer.ends_at,
            pace=_pace(task, offer),
        )
        for offer, has_room in usable
    )


def _pace(task: TaskSpec, offer: Offer) -> float:
    """Return the work of `task` done in an hour, relative to speed 1; checkpoints take the time that they do on a steady pool."""
    if not task.checkpoints:
        return offer.speed
    interval = checkpoint_interval(task.checkpoint_write, 0.0)
    return offer.speed * (interval / (interval + task.checkpoint_write))


def queue_before(
    before: Sequence[TaskSpec],
    task: TaskSpec,
    usable: Sequence[tuple[Offer, bool]],
    now: datetime,
) -> timedelta:
    """Return how long steady capacity may be taken by tasks whose turn is before, once `task` needs it.

    Nothing where all find room at once; else the time in which the slots that are free now do the work of the others, each at
    its own speed.

    Args:
        before: Tasks that hold nothing, wait of their own accord or for room, and may need such capacity before.
        task: The one that asks.
        usable: What it may use, as `usable_offers` returns it.
        now: The moment of asking.
    """
    steady = [(offer, has_room) for offer, has_room in usable if offer.market is not Market.SPOT]
    free = sum(offer.free_slots for offer, has_room in steady if has_room)
    if sum(one.nodes for one in before) + task.nodes <= free:
        return timedelta(0)
    line = [one for one in before if any(_may_take(one, offer, now) for offer, _ in steady)]
    if not line or sum(one.nodes for one in line) + task.nodes <= free:
        return timedelta(0)
    by_speed = sum(offer.free_slots * offer.speed for offer, has_room in steady if has_room)
    work = sum((one.nodes * one.work for one in line), timedelta(0))
    # An end is seen within a look, and who is next asks again within another.
    between = sum((one.nodes * (one.restart_overhead + 2 * LOOK) for one in line), timedelta(0))
    return work / (by_speed or min(offer.speed for offer, _ in steady)) + between / max(free, 1)


def _may_take(task: TaskSpec, offer: Offer, now: datetime) -> bool:
    no = refusal(task, offer, now)
    return no is None or no.can_wait


def new_job(task: TaskSpec, *, queue: timedelta = timedelta(0)) -> JobProgress:
    """Return the progress of a job that holds nothing; `task.work` is what is left of it."""
    return JobProgress(
        work_left=task.work,
        deadline=task.deadline,
        restart_overhead=task.restart_overhead,
        next_look=LOOK,
        queue=queue,
    )


def what_is_left(task: TaskSpec, lease: Lease, said: Heartbeat | None, now: datetime) -> TaskSpec:
    """Return `task`, as it was placed, with the work that its lease has not done yet by its last heartbeat.

    Of its budget is gone what the lease will have added by the next look, when it may have left.
    """
    left = replace(task, work=task.work * (1 - _shares(said)[0]))
    if task.max_cost_usd is None:
        return left
    added = (lease.submission.marginal_usd_per_hour or 0) * hours(now + LOOK - lease.granted_at)
    return replace(left, spent_usd=task.spent_usd + added)


def running_job(
    task: TaskSpec,
    lease: Lease,
    taken: Offer,
    said: Heartbeat | None,
    now: datetime,
) -> JobProgress:
    """Return the progress of the job on `lease`, by its last heartbeat.

    Args:
        task: As it was placed: its work is what was left then.
        lease: Where it runs.
        taken: The offer that it was placed on.
        said: What it said last; None when it has said nothing.
        now: The moment of asking.
    """
    done, saved = _shares(said)
    started = said is not None and said.first_progress_at is not None
    restart_left = lease.granted_at + restart_overhead(task, taken) - now
    return JobProgress(
        work_left=task.work * (1 - done),
        deadline=task.deadline,
        restart_overhead=task.restart_overhead,
        next_look=LOOK,
        held=Held(
            pool=lease.pool,
            restart_left=timedelta(0) if started else max(restart_left, timedelta(0)),
            uncommitted=task.work * max(done - saved, 0.0),
            is_saved_on_notice=started
            and lease.submission.grace_period >= _checkpoint_write(task, said),
        ),
        # A job of which no progress was heard yet may do none until the next look.
        checkpoints_every=_most_unsaved(task, lease, taken, said) if started else task.work,
    )


def _most_unsaved(task: TaskSpec, lease: Lease, taken: Offer, said: Heartbeat | None) -> timedelta:
    """Return the most work that no checkpoint holds at a time: what is done between two, and while one is written."""
    interval = None if said is None else said.checkpoint_interval
    interval = interval or lease.submission.checkpoint_interval
    if interval is None:
        return task.work
    return min((interval + _checkpoint_write(task, said)) * taken.speed, task.work)


def _checkpoint_write(task: TaskSpec, said: Heartbeat | None) -> timedelta:
    """Return how long a checkpoint takes to write: as the task says, or longer where the job has measured it."""
    if said is None or said.expected_loss is None or said.checkpoint_interval is None:
        return task.checkpoint_write
    return max(task.checkpoint_write, said.expected_loss - said.checkpoint_interval / 2)


def _shares(said: Heartbeat | None) -> tuple[float, float]:
    """Return which shares of the work that was left at its launch a lease has done, and saved."""
    if said is None or said.step is None or said.first_step is None or not said.total_steps:
        return 0.0, 0.0
    before = said.first_step - 1
    left = max(said.total_steps - before, 1)
    saved = max((said.checkpoint_step or before) - before, 0)
    return min(max(said.step - before, 0) / left, 1.0), min(saved / left, 1.0)


# ---- what it answers ------------------------------------------------------------------------------------------


def to_follow(weighed: Weighed) -> Option:
    """Return the option to follow: the policy's best, unless the whole job has too little at stake to wait or move for.

    A job that holds nothing follows the best of what can be had, where that is a last resort that is full.

    What could be saved at the most is what the work left costs on the fallback, less what the best is expected to cost. Where
    that is less than a tenth of a cent, or 2 %, nobody would see it on a bill, but they would see the wait. More than that
    adds up: a month of half-hour jobs, each run at once to save its cent, came out a twentieth dearer.
    """
    options, job = _within_reach(weighed), weighed.situation.job
    best, held = options[0], None if job.held is None else job.held.pool
    stay = _without_waiting(options, held)
    if stay is None or stay.pool == best.pool or (held is None and best.pool is not None):
        return best
    if best.in_time and not stay.in_time:
        return best
    fallback = fallback_of(weighed.situation.pools, job, weighed.situation.now)
    dearest = fallback.usd_per_hour * (job.work_left / fallback.pace / _HOUR)
    at_stake = max(dearest, stay.expected_usd) - best.expected_usd
    return best if at_stake >= max(LEAST_SAVING_USD, LEAST_SAVING * dearest) else stay


def goes_on_in(weighed: Weighed) -> str | None:
    """Return the pool in which the job goes on, or None to wait: what it holds, while the pool to follow is full."""
    followed, held = to_follow(weighed).pool, weighed.situation.job.held
    return held.pool if held is not None and followed in _full(weighed.situation) else followed


def _within_reach(weighed: Weighed) -> Sequence[Option]:
    """Return the options, best first, less the last resort where that is best, full, and nothing is held meanwhile.

    Where nothing else keeps the deadline either, whatever runs goes before waiting for it.
    """
    options, full = weighed.decision.options, _full(weighed.situation)
    if weighed.situation.job.held is not None or options[0].pool not in full:
        return options
    there = [option for option in options if option.pool not in full]
    if there[0].in_time:
        return there
    return sorted(there, key=lambda option: (option.pool is None, option.expected_usd))


def _full(situation: Situation) -> set[str]:
    return {view.name for view in situation.pools if view.available is False}


def _without_waiting(options: Sequence[Option], held: str | None) -> Option | None:
    """Return what a job does that neither waits nor leaves: stay, or run where that is best."""
    running = [option for option in options if option.pool is not None]
    if held is not None:
        running = [option for option in running if option.pool == held]
    return running[0] if running else None


def placed(
    task: TaskSpec, offers: Sequence[Offer], weighed: Weighed, now: datetime
) -> Placement | Unplaced:
    """Return the policy's decision as a placement, with the reason for every offer passed over."""
    by_price = choose(task, offers, now)
    if isinstance(by_price, Unplaced):
        return by_price
    memo, followed = encode(weighed), to_follow(weighed)
    taken = next((offer for offer in offers if offer.pool == followed.pool), None)
    if taken is None or refusal(task, taken, now) is not None:
        return Unplaced(
            passed_over=_all_passed_over(by_price, weighed, None),
            task=by_price.task,
            decided_at=now,
            weighed=memo,
            until=now + LOOK,
            reason=weighed.decision.reason,
        )
    return Placement(
        offer=taken,
        estimate=estimate(task, taken),
        reason=_why(weighed, followed),
        passed_over=_all_passed_over(by_price, weighed, taken.pool),
        task=by_price.task,
        decided_at=now,
        residency=residency_evidence(task, taken),
        weighed=memo,
    )


def _why(weighed: Weighed, followed: Option) -> str:
    best = weighed.decision.options[0]
    if followed == best:
        return weighed.decision.reason
    but = "is full" if best.pool in _full(weighed.situation) else "would save too little"
    return (
        f"run: {followed.pool} is expected to complete for {usd(followed.expected_usd)}; {best.pool or 'waiting'}, for "
        f"{usd(best.expected_usd)}, {but}"
    )


def _all_passed_over(
    by_price: Placement, weighed: Weighed, taken: str | None
) -> tuple[PassedOver, ...]:
    """Return every offer but the one taken: those that could have been with what the policy expects of them."""
    first = PassedOver(offer=by_price.offer, reason=by_price.reason, estimate=by_price.estimate)
    found: list[PassedOver] = []
    for passed in (first, *by_price.passed_over):
        if passed.offer.pool == taken:
            continue
        expected = _expected(weighed.decision, passed.offer.pool)
        found.append(
            passed
            if expected is None or passed.can_wait
            else replace(passed, reason=expected, can_wait=taken is None)
        )
    return tuple(found)


def _expected(decision: Decision, pool: str) -> str | None:
    """Return what the policy expects of taking `pool`, in words; None where it was no option."""
    for option in decision.options:
        if option.pool == pool:
            late = "" if option.in_time else ", and might be late"
            best = decision.options[0]
            return (
                f"is expected to complete for {usd(option.expected_usd)}{late}; "
                f"{best.pool or 'waiting'} for {usd(best.expected_usd)}"
            )
    return None


_HOUR: Final = timedelta(hours=1)
