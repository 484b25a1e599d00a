"""Decisions made again from their records: by price, over time, and plans to start later."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from spillway.catalog.value_tables import ValueTables
from spillway.model import Market, Offer, Placement, Resources, TaskSpec, Unplaced
from spillway.model.codec import decode_json, encode_json
from spillway.placement.again import recompute
from spillway.placement.availability_prior import prior
from spillway.placement.choose import choose
from spillway.placement.over_time import (
    Situation,
    new_job,
    placed,
    pool_views,
    usable_offers,
    weigh,
)
from spillway.placement.policy_values import PolicyState
from spillway.placement.shifting import RoomAhead, later_start, waiting
from spillway.placement.value_table import TableSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 3, 4, 18, tzinfo=UTC)
HOUR = timedelta(hours=1)
TABLES = ValueTables()
# One small table for all: which one it is only has to be the same both times.
SPEC = TableSpec(
    look_hours=1 / 6,
    looks_per_step=2,
    work_hours=4.0,
    slack_hours=4.0,
    restart_hours=0.1,
    spot_price=0.33,
)
TASK = TaskSpec(
    entry_point="package.module:train",
    work=4 * HOUR,
    checkpoints=True,
    restart_overhead=timedelta(minutes=6),
    deadline=NOW + 8 * HOUR,
)


def offer(pool: str, market: Market, usd: str, **more: Any) -> Offer:
    return Offer(
        **{
            "pool": pool,
            "backend": "fake",
            "market": market,
            "region": "local",
            "shape": Resources(),
            "free_slots": 1,
            "cooling_down": False,
            "marginal_usd_per_hour": Decimal(usd),
            "effective_usd_per_hour": Decimal(usd),
            "list_usd_per_hour": Decimal(usd),
            "price_reason": "list price",
            "preemptions_per_hour": 0.2 if market is Market.SPOT else 0.0,
            "restart_overhead": timedelta(0),
            "grace_period": timedelta(seconds=30),
            "speed": 1.0,
            **more,
        }
    )


def over_time(task: TaskSpec, offers: Sequence[Offer]) -> Placement | Unplaced:
    """Return what production decides by the policy over time, which it asks about tasks like this one."""
    usable = usable_offers(task, offers, NOW)
    job, views = new_job(task), pool_views(task, usable)
    model = prior(sum(not v.is_steady for v in views))
    situation = Situation(job=job, pools=views, now=NOW, state=PolicyState(), spec=SPEC)
    weighed = weigh(situation, table=TABLES.get(SPEC, model), model=model)
    return placed(task, offers, weighed, NOW)


def stored(decision: Placement | Unplaced) -> Placement | Unplaced:
    """Return the decision as it comes back from a record."""
    return decode_json(encode_json(decision), type(decision))


@settings(max_examples=40, deadline=None)
@given(
    free=st.lists(st.booleans(), min_size=2, max_size=2),
    usd=st.sampled_from(["0.3", "0.33"]),
    slack=st.sampled_from([0.0, 0.15, 4.0]),
)
def test_what_the_policy_over_time_decided_is_decided_again(
    free: list[bool], usd: str, slack: float
) -> None:
    task = replace(TASK, deadline=NOW + TASK.work + slack * HOUR + timedelta(minutes=6))
    offers = [
        offer("spot", Market.SPOT, usd, free_slots=int(free[0])),
        offer("always", Market.ON_DEMAND, "1", free_slots=int(free[1])),
        offer("small", Market.ON_DEMAND, "1", shape=Resources(cpus=0.5)),
    ]
    decision = over_time(task, offers)
    event("waits" if isinstance(decision, Unplaced) else decision.offer.pool)
    assert recompute(stored(decision), table_of=TABLES.get) == decision
    named = [passed.offer.pool for passed in decision.passed_over]
    named += [decision.offer.pool] if isinstance(decision, Placement) else []
    assert sorted(named) == ["always", "small", "spot"]
    assert all(passed.reason for passed in decision.passed_over)


@given(st.lists(st.integers(0, 1), max_size=12), st.sampled_from([None, "spot"]))
@settings(max_examples=40, deadline=None)
def test_a_plan_to_start_later_is_made_again_with_its_hour(
    free: list[int], beside: str | None
) -> None:
    ahead = (RoomAhead(pool="reserved", since=NOW, free=(0, *free)),)
    full = offer("reserved", Market.RESERVED, "0", free_slots=0)
    offers = [full, offer("always", Market.ON_DEMAND, "1")]
    task = replace(TASK, checkpoints=beside is not None)
    if beside is not None:
        offers.append(offer(beside, Market.SPOT, "0.3"))
    base = choose(task, offers, NOW) if beside is None else over_time(task, offers)
    assert isinstance(base, Placement)
    plan = later_start(task, base, ahead, NOW)
    event("waits" if plan else "runs")
    decision = base if plan is None else waiting(base, plan, ahead, NOW)
    again = recompute(stored(decision), table_of=TABLES.get)
    assert again == decision
    if plan is not None:
        assert isinstance(again, Unplaced)
        assert again.reason == plan.reason
