"""Spillway itself among the policies: the functions that production asks, with what a simulation knows."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from spillway.catalog.value_tables import ValueTables
from spillway.model import Market, Offer, PassedOver, Placement, PlannedSlots, TaskSpec
from spillway.placement.availability_prior import prior
from spillway.placement.choose import choose
from spillway.placement.estimate import estimate
from spillway.placement.feasible import refusal
from spillway.placement.over_time import (
    Situation,
    has_time,
    new_job,
    pool_views,
    queue_before,
    to_follow,
    usable_offers,
    wait_until,
    weigh,
)
from spillway.placement.policy import still_serves, table_spec
from spillway.placement.policy_values import Held, JobProgress, PolicyState, PoolView
from spillway.placement.shifting import LaterStart, later_start, slots_planned
from spillway.placement.weighing import counted_at, fallback_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from spillway.placement.value_table import TableSpec
    from spillway.sim.strategies import HeldLease, Question

DEFAULT_SHARING: Final = 8.0
_HOUR: Final = timedelta(hours=1)


Usable = list[tuple[Offer, bool]]
"""What could take a job, and whether it has room."""


@dataclass(slots=True)
class _Believed:
    """What was known of some pools before the instant `at`, and after it."""

    at: datetime
    before: PolicyState = field(default_factory=PolicyState)
    after: PolicyState = field(default_factory=PolicyState)


class Spillway:
    """The production policy: `choose` for what cannot wait or move, the policy over time for everything else."""

    name = "spillway"
    reconsiders = True

    def __init__(
        self,
        tables: ValueTables | None = None,
        *,
        sharing: float = DEFAULT_SHARING,
        hesitates: bool = True,
    ) -> None:
        """Make the policy.

        Args:
            tables: Where value tables are kept.
            sharing: By which factor a table may reach further than a job needs, so that many jobs share one. With 1
                each job has the table that production would make for it, and each takes about a second to make.
            hesitates: Whether it waits and moves only for what shows on a bill, as production does. Else it does what the
                policy thinks best at every look, which is what is scored against spot traces.
        """
        self._tables = ValueTables() if tables is None else tables
        self._sharing, self._hesitates = sharing, hesitates
        self._spec_of: dict[str, TableSpec] = {}
        self._beliefs: dict[tuple[str, ...], _Believed] = {}
        self._specs: dict[object, list[TableSpec]] = defaultdict(list)
        self._plans: dict[str, PlannedSlots] = {}
        self._waiting: dict[str, TaskSpec] = {}
        self._wait_until: datetime | None = None

    def answer(self, question: Question) -> str | None:
        """Return where production would run the job until the next look."""
        self._wait_until = None
        pool = self._now(question)
        self._forget_waiting(question.job)
        if pool is None and question.spec.deadline is not None:
            self._waiting[question.job] = question.spec
        plan = None
        if pool is not None:
            plan = _later(question, pool, self._plans.values(), self._wait_until)
        if plan is None:
            return pool
        self._plans[question.job] = slots_planned(question.spec, plan)
        return None

    def _now(self, question: Question) -> str | None:
        """Return where the job would run if nothing that is to come free were waited for."""
        held, spec = question.held, question.spec
        if held is not None and (not has_time(spec) or _costs_nothing(held)):
            return held.pool
        if not has_time(spec):
            return _pool(by_price(question))
        pool = None if held is None else held.pool
        usable = usable_offers(spec, question.offers, question.now, held=pool)
        if held is None and not _is_room_dear(usable):
            placement = by_price(question)
            if placement is None or _is_free(question, placement):
                return _pool(placement)
        return self._over_time(question, usable)

    def forget(self, job: str) -> None:
        """Drop what was remembered of a job that is complete."""
        self._spec_of.pop(job, None)
        self._forget_waiting(job)

    def _forget_waiting(self, job: str) -> None:
        self._plans.pop(job, None)
        self._waiting.pop(job, None)

    def _before(self, question: Question) -> list[TaskSpec]:
        """Return the tasks that hold nothing and have their turn before, by their deadlines, then by name."""
        mine = question.spec.deadline, question.job
        return [
            spec
            for job, spec in self._waiting.items()
            if spec.deadline is not None and (spec.deadline, job) < mine
        ]

    def _over_time(self, question: Question, usable: Usable) -> str | None:
        now = question.now
        pool = None if question.held is None else question.held.pool
        if all(offer.market is Market.SPOT for offer, _ in usable):
            # Nothing steady to fall back on: the deadline is lost, or there is no such pool.
            return pool if pool is not None else _pool(by_price(question))
        before = self._before(question)
        job = replace(_progress(question), queue=queue_before(before, question.spec, usable, now))
        views = pool_views(question.spec, usable)
        spec = self._spec(question, job, views)
        model = prior(spec.pools)
        kept = self._believed(views, now)
        situation = Situation(job=job, pools=views, now=now, state=kept.before, spec=spec)
        weighed = weigh(situation, table=self._tables.get(spec, model), model=model)
        self._wait_until = wait_until(situation)
        kept.after = weighed.state
        chosen = to_follow(weighed).pool if self._hesitates else weighed.decision.pool
        if chosen is None or chosen == pool or _has_room(usable, chosen):
            return chosen
        return pool  # the last resort is full: what is held is kept meanwhile

    def _believed(self, views: Sequence[PoolView], now: datetime) -> _Believed:
        """Return what is believed of these pools: as in production, all jobs that may use them share it.

        All that look at one instant go on from what was known before it.
        """
        names = tuple(view.name for view in views if not view.is_steady)
        kept = self._beliefs.setdefault(names, _Believed(now))
        if kept.at != now:
            kept.at, kept.before = now, kept.after
        return kept

    def _spec(self, question: Question, job: JobProgress, views: Sequence[PoolView]) -> TableSpec:
        """Return the table to look into: that of the job's last look, as long as it serves."""
        wanted = table_spec(job, views, question.now)
        kept = self._spec_of.get(question.job)
        if kept is None or not still_serves(kept, wanted):
            kept = self._spec_of[question.job] = self._table_for(wanted, job, views, question)
        return kept

    def _table_for(
        self, wanted: TableSpec, job: JobProgress, views: Sequence[PoolView], question: Question
    ) -> TableSpec:
        """Return a table that serves and does not reach too much further than is needed; a new one if need be."""
        if self._sharing <= 1:
            return wanted
        known = self._specs[wanted.restart_hours, wanted.pools, wanted.evictions_per_hour]
        most = self._sharing * 2 * _reach(wanted)
        serving = [one for one in known if still_serves(one, wanted) and _reach(one) <= most]
        if serving:
            return min(serving, key=_reach)
        job, views = counted_at(fallback_of(views, job, question.now).pace, job, views)
        assert job.deadline is not None  # or there is nothing to decide
        work = self._roomy(job.work_left)
        slack = self._roomy(max(job.deadline - question.now - job.work_left, question.look))
        roomy = table_spec(
            replace(job, work_left=work, deadline=question.now + work + slack),
            views,
            question.now,
        )
        made = roomy if still_serves(roomy, wanted) else wanted
        known.append(made)
        return made

    def _roomy(self, duration: timedelta) -> timedelta:
        """Return the next power of `sharing` hours."""
        hours = max(duration / _HOUR, 1 / self._sharing)
        power = math.ceil(math.log(hours, self._sharing) - 1e-9)
        return timedelta(hours=self._sharing**power)


def by_price(question: Question) -> Placement | None:
    """Return what `choose` takes; of a job that no pool can finish in time, where it costs least to finish it late."""
    decision = choose(question.spec, question.offers, question.now)
    if not isinstance(decision, Placement) and question.spec.deadline and not decision.can_wait:
        late: TaskSpec = replace(question.spec, deadline=None)
        decision = choose(late, question.offers, question.now)
    return decision if isinstance(decision, Placement) else None


def _later(
    question: Question, pool: str, planned: Collection[PlannedSlots], until: datetime | None
) -> LaterStart | None:
    """Return the plan to wait for committed capacity that will be free, instead of taking `pool` now."""
    spec, now = question.spec, question.now
    if question.held is not None or spec.deadline is None:
        return None
    taken = next(offer for offer in question.offers if offer.pool == pool)
    here = estimate(spec, taken)
    full = [o for o in question.offers if o.market.is_committed and not question.has_room(o)]
    if not here.cost_usd or not full:
        return None
    passed = [
        PassedOver(offer=offer, reason=no.reason, can_wait=True, estimate=estimate(spec, offer))
        for offer in full
        if (no := refusal(spec, offer, now)) is not None and no.can_wait
    ]
    decision = Placement(offer=taken, estimate=here, reason="", passed_over=tuple(passed))
    ahead = question.foresee(spec.deadline, planned) if passed else ()
    return later_start(spec, decision, ahead, now, wait_until=until)


def _progress(question: Question) -> JobProgress:
    """Return the job as the policy wants it; `question.spec.work` is what is left of it."""
    job = replace(new_job(question.spec), next_look=question.look)
    held = question.held
    if held is None:
        return job
    most = question.spec.work
    if held.checkpoint_interval is not None:
        most = min(held.checkpoint_interval * held.offer.speed, most)
    return replace(
        job,
        held=Held(
            pool=held.pool,
            restart_left=held.restart_left,
            uncommitted=held.at_risk,
            is_saved_on_notice=held.is_saved_on_notice,
        ),
        checkpoints_every=most,
    )


def _is_room_dear(usable: Usable) -> bool:
    """Whether there is room, and none that stays and costs nothing, so that price alone cannot decide."""
    there = [offer for offer, has_room in usable if has_room]
    free = any(o.market is not Market.SPOT and o.marginal_usd_per_hour == 0 for o in there)
    return bool(there) and not free


def _pool(placement: Placement | None) -> str | None:
    return None if placement is None else placement.offer.pool


def _is_free(question: Question, placement: Placement) -> bool:
    """Whether a placement adds nothing to the bill, stays, and is expected to be in time: nothing can be better."""
    deadline = question.spec.deadline
    return (
        placement.offer.market is not Market.SPOT
        and placement.estimate.cost_usd == 0
        and (deadline is None or question.now + placement.estimate.leased <= deadline)
    )


def _costs_nothing(held: HeldLease) -> bool:
    """Whether the lease held adds nothing to the bill and stays, so that there is nothing to gain by leaving it."""
    return held.is_steady and not held.offer.marginal_usd_per_hour and held.offer.ends_at is None


def _has_room(usable: Usable, pool: str) -> bool:
    return any(offer.pool == pool and has_room for offer, has_room in usable)


def _reach(spec: TableSpec) -> float:
    return spec.work_hours + spec.slack_hours
