"""Spillway itself among the policies: the functions that production asks, with what a simulation knows."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.catalog.value_tables import ValueTables
from spillway.model import Market, Offer, Placement, TaskSpec
from spillway.placement.availability_prior import prior
from spillway.placement.choose import choose
from spillway.placement.over_time import (
    Situation,
    has_time,
    new_job,
    pool_views,
    reference_speed,
    usable_offers,
    weigh,
)
from spillway.placement.policy import still_serves, table_spec
from spillway.placement.policy_values import Held, JobProgress, PolicyState, PoolView
from spillway.placement.value_table import TableSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spillway.sim.strategies import HeldLease, Question

DEFAULT_SHARING: Final = 8.0
_HOUR: Final = timedelta(hours=1)
_MOST_LOOKS: Final = 36
_NOTHING: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Memory:
    state: PolicyState
    spec: TableSpec


class Spillway:
    """The production policy: `choose` for what cannot wait or move, the policy over time for everything else."""

    name = "spillway"
    reconsiders = True

    def __init__(
        self, tables: ValueTables | None = None, *, sharing: float = DEFAULT_SHARING
    ) -> None:
        """Make the policy.

        Args:
            tables: Where value tables are kept.
            sharing: By which factor a table may reach further than a job needs, so that many jobs share one. With 1
                each job has the table that production would make for it, and each takes about a second to make.
        """
        self._tables = ValueTables() if tables is None else tables
        self._sharing = sharing
        self._memories: dict[str, _Memory] = {}
        self._specs: dict[object, list[TableSpec]] = defaultdict(list)

    def answer(self, question: Question) -> str | None:
        """Return where production would run the job until the next look."""
        held = question.held
        if held is not None and (not has_time(question.spec) or _costs_nothing(held)):
            return held.pool
        if held is None:
            placement = by_price(question)
            if placement is None or not has_time(question.spec) or _is_free(question, placement):
                return None if placement is None else placement.offer.pool
        return self._over_time(question)

    def forget(self, job: str) -> None:
        """Drop what was remembered of a job that is complete."""
        self._memories.pop(job, None)

    def _over_time(self, question: Question) -> str | None:
        spec, now, held = question.spec, question.now, question.held
        pool = None if held is None else held.pool
        usable = usable_offers(spec, question.offers, now, held=pool)
        if all(offer.market is Market.SPOT for offer, _ in usable):
            # Nothing steady to fall back on: the deadline is lost, or there is no such pool.
            placement = by_price(question)
            return pool if placement is None or pool is not None else placement.offer.pool
        job = _progress(question, reference_speed(usable))
        views = pool_views(usable)
        memory = self._memories.get(question.job)
        wanted = table_spec(job, views, now)
        if memory is None or not still_serves(memory.spec, wanted):
            state = PolicyState() if memory is None else memory.state
            memory = _Memory(state=state, spec=self._table_for(wanted, job, views, question))
        model = prior(memory.spec.pools)
        weighed = weigh(
            Situation(
                job=job,
                pools=views,
                now=now,
                state=_in_whole_looks(memory.state, question),
                spec=memory.spec,
            ),
            table=self._tables.get(memory.spec, model),
            model=model,
        )
        self._memories[question.job] = _Memory(state=weighed.state, spec=memory.spec)
        chosen = weighed.decision.pool
        if chosen is None or chosen == pool or _has_room(usable, chosen):
            return chosen
        return None  # the last resort is full

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


def _in_whole_looks(state: PolicyState, question: Question) -> PolicyState:
    """Return what was remembered as if it had been seen a whole number of looks ago, the nearest.

    A belief is carried on by a matrix for each span of time, which takes far longer to make than a decision. So spans are few.
    """
    if state.seen_at is None:
        return state
    looks = min(round((question.now - state.seen_at) / question.look), _MOST_LOOKS)
    return replace(state, seen_at=question.now - looks * question.look)


def by_price(question: Question) -> Placement | None:
    """Return what `choose` takes; of a job that no pool can finish in time, where it costs least to finish it late."""
    decision = choose(question.spec, question.offers, question.now)
    if not isinstance(decision, Placement) and question.spec.deadline and not decision.can_wait:
        late: TaskSpec = replace(question.spec, deadline=None)
        decision = choose(late, question.offers, question.now)
    return decision if isinstance(decision, Placement) else None


def _progress(question: Question, speed: float) -> JobProgress:
    """Return the job as the policy wants it; `question.spec.work` is what is left of it."""
    job = replace(new_job(question.spec, speed), next_look=question.look)
    held = question.held
    if held is None:
        return job
    interval = held.checkpoint_interval or question.spec.work
    return replace(
        job,
        held=Held(pool=held.pool, restart_left=held.restart_left, uncommitted=held.at_risk / speed),
        checkpoints_every=_NOTHING
        if held.is_saved_on_notice
        else min(interval, question.spec.work),
    )


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
    return held.is_steady and held.offer.marginal_usd_per_hour == 0


def _has_room(usable: Sequence[tuple[Offer, bool]], pool: str) -> bool:
    return any(offer.pool == pool and has_room for offer, has_room in usable)


def _reach(spec: TableSpec) -> float:
    return spec.work_hours + spec.slack_hours
