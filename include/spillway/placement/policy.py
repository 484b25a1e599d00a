"""What to do now with a job that has a deadline: run here, wait, or move there. Pure; call it as often as wanted.

`decide` is asked when a job is placed and whenever its pools are looked at, at any interval. It keeps a belief about each
spot pool, weighs every option by its expected cost to complete (`value_table`), and takes the cheapest. One rule goes
before every price: an option after which steady capacity could no longer make the deadline is not taken.

Work is counted in hours at the pace of the last resort, the steady pool that finishes the job when spot capacity fails.
Where a faster one, though dearer, could be started on later, each is tried as the last resort, and the cheaper answer is
taken: so one more pool never makes a job dearer. Of several spot pools the state of the best one is followed; the others count as a chance of finding
capacity elsewhere. Both are approximations: exact costs would need a table over the states of all pools at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from spillway.placement.explain import usd
from spillway.placement.policy_values import Action, Decision
from spillway.placement.sight import sight
from spillway.placement.value_table import ALONE, AMONG_OTHERS, TableSpec
from spillway.placement.weighing import (
    Weighing,
    counted_at,
    fallback_of,
    hours_of,
    last_resorts,
    least_extra_restart,
    slack_hours,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from spillway.placement.availability import AvailabilityModel
    from spillway.placement.policy_values import JobProgress, Option, PolicyState, PoolView
    from spillway.placement.value_table import ValueTable


def table_spec(job: JobProgress, pools: Sequence[PoolView], now: datetime) -> TableSpec:
    """Return the table that `decide` needs for `job` from now until it is complete.

    Durations are rounded up in steps of a fifth, so that similar jobs share a table. One table does until `still_serves`
    says otherwise; small differences of price are weighed without a new one.

    Raises:
        SpecError: There is no steady pool to fall back on.
    """
    fallback = fallback_of(pools, job, now)
    job, pools = counted_at(fallback.pace, job, pools)
    spots = [pool.usd_per_hour for pool in pools if not pool.is_steady]
    work = _ladder(hours_of(job.work_left))
    slack = slack_hours(job, now)
    restart = hours_of(job.restart_overhead + least_extra_restart(pools))
    look = max(hours_of(job.next_look), _SHORTEST_LOOK_HOURS)
    longest_slack = min(_ladder(max(slack, 4 * restart, 2 * look)), work + _MOST_EXTRA_SLACK_HOURS)
    target = max((work + longest_slack) / _STEPS, restart / _RESTART_LEVELS)
    price = min(spots) / fallback.usd_per_hour if spots and fallback.usd_per_hour > 0 else 1.0
    return TableSpec(
        look_hours=round(look, 6),
        looks_per_step=max(1, round(target / look)),
        work_hours=work,
        slack_hours=longest_slack,
        restart_hours=round(restart, 6),
        spot_price=float(f"{min(price, 1.0):.2g}"),
        pools=min(max(len(spots), 1), _MOST_POOLS),
        evictions_per_hour=ALONE if len(spots) <= 1 else AMONG_OTHERS,
    )


def still_serves(spec: TableSpec, wanted: TableSpec) -> bool:
    """Whether the table of `spec` does where `wanted` would be made afresh: it reaches as far, at nearly its price."""
    return (
        spec.work_hours >= wanted.work_hours
        and spec.slack_hours >= min(wanted.slack_hours, spec.work_hours)
        and spec.restart_hours == wanted.restart_hours
        and spec.pools == wanted.pools
        and spec.evictions_per_hour == wanted.evictions_per_hour
        and math.isclose(spec.spot_price, wanted.spot_price, rel_tol=_SAME_PRICE)
        and spec.look_hours == wanted.look_hours
    )


def decide(
    job: JobProgress,
    pools: Sequence[PoolView],
    now: datetime,
    state: PolicyState,
    *,
    table: ValueTable,
    model: AvailabilityModel,
) -> tuple[Decision, PolicyState]:
    """Return what to do until the next look, and what to remember until then.

    Ties go to what is held, then to the pool whose name sorts first, then to waiting. The fallback, the cheapest steady pool with room, is
    always an option; when nothing keeps the deadline any more, the fallback or the capacity held is taken.

    Raises:
        SpecError: There is no steady pool to fall back on.
    """
    seen = tuple((pool.name, pool.available) for pool in pools if not pool.is_steady)
    believed = sight(seen, now, state, market_pools=table.spec.pools, model=model)
    weighings = (
        Weighing(job, pools, now, believed, table, fallback)
        for fallback in last_resorts(pools, job, now)
    )
    options = min((each.options() for each in weighings), key=_rank)
    best = options[0]
    action = _action(job, best)
    decision = Decision(
        action=action,
        pool=best.pool,
        reason=_reason(action, options),
        options=tuple(options),
    )
    return decision, believed.remembered(now)


_STEPS = 400
_RESTART_LEVELS = 8
_SHORTEST_LOOK_HOURS = 10 / 3600
_MOST_EXTRA_SLACK_HOURS = 24.0
_SAME_PRICE = 0.15
_MOST_POOLS = 9


def _rank(options: Sequence[Option]) -> tuple[bool, float]:
    return not options[0].in_time, options[0].expected_usd


def _action(job: JobProgress, best: Option) -> Action:
    if best.pool is None:
        return Action.WAIT
    if job.held is None or job.held.pool == best.pool:
        return Action.RUN
    return Action.CHECKPOINT_AND_MOVE if job.held.uncommitted else Action.MOVE


def _reason(action: Action, options: Sequence[Option]) -> str:
    best = options[0]
    where = "waiting" if best.pool is None else f"{best.pool}"
    said = f"{action.value.replace('_', ' ')}: {where} is expected to complete for {usd(best.expected_usd)}"
    in_time = [option for option in options[1:] if option.in_time]
    if not best.in_time:
        return f"{said}; nothing keeps the deadline for certain any more"
    if not in_time:
        return f"{said}; nothing else keeps the deadline for certain"
    other = in_time[0]
    name = "waiting" if other.pool is None else other.pool
    return f"{said}, {name} for {usd(other.expected_usd)}"


def _ladder(hours: float) -> float:
    """Return the next number up in a geometric series, so that similar durations become one."""
    return (
        round(1.2 ** math.ceil(math.log(max(hours, 1e-3), 1.2) - 1e-9), 6)
        if hours < math.inf
        else math.inf
    )
