"""What was lived through reaches the decision: lossy pools lose, fast machines win, used-up contracts cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.catalog.offers import make_offers
from spillway.model import (
    CapacityBlock,
    Market,
    MonthlyMinimum,
    Placement,
    Pool,
    PoolDay,
    PoolUsage,
    Resources,
    SpeedSample,
    TaskSpec,
)
from spillway.placement.choose import choose
from spillway.placement.experience import Experience, outlook
from spillway.testing.strategies import instants, pools, tasks, usages

NOW = datetime(2026, 3, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
TRAIN = TaskSpec(
    entry_point="package.module:train",
    workload="gpt",
    resources=Resources(accelerator_count=1),
    work=20 * HOUR,
    checkpoints=True,
    checkpoint_write=timedelta(minutes=2),
    restart_overhead=timedelta(minutes=20),
)


def a_pool(name: str, market: Market, usd_per_hour: str, accelerator: str = "A100-80GB") -> Pool:
    return Pool(
        name=name,
        backend="local",
        market=market,
        slots=10,
        shape=Resources(accelerator=accelerator, accelerator_count=1),
        list_usd_per_hour=Decimal(usd_per_hour),
        preemptions_per_hour=None if market is Market.SPOT else 0.0,
        region=name,
    )


def taken(
    some: list[Pool], experience: Experience, usage: dict[str, PoolUsage] | None = None
) -> str:
    seen = outlook(some, usage or {}, TRAIN, experience, NOW)
    offers = make_offers(seen.pools, usage=seen.usage, free_slots={}, task=TRAIN, now=NOW)
    decision = choose(TRAIN, offers, NOW)
    assert isinstance(decision, Placement)
    return decision.offer.pool


def days(losses: int, slot_hours: float, count: int = 1) -> list[PoolDay]:
    return [
        PoolDay(day=(NOW - timedelta(days=ago)).date(), slot_hours=slot_hours, losses=losses)
        for ago in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("percent", "least", "most", "goes_to"),
    [(40, 0.0, 0.0, "partner"), (100, 0.5, 0.6, "partner"), (140, 1.0, 1.0, "on_demand")],
)
def test_ten_slots_under_contract_are_taken_by_what_use_is_forecast(
    percent: int, least: float, most: float, goes_to: str
) -> None:
    """Below the contract for its variable fee, at it for about half the overage beside, and above it not at all."""
    daily = 240.0 * percent / 100
    lived = [
        PoolDay(
            day=(NOW - timedelta(days=ago)).date(), slot_hours=daily + (-40, 40)[ago % 2], losses=0
        )
        for ago in range(1, 29)
    ]
    terms = MonthlyMinimum(
        slot_hours=Decimal(31 * 240),
        usd_per_slot_hour=Decimal("1.80"),
        overage_usd_per_slot_hour=Decimal(3),
        variable_usd_per_slot_hour=Decimal("0.20"),
    )
    partner = replace(a_pool("partner", Market.PARTNER, "4"), commitment=terms)
    some = [partner, a_pool("on_demand", Market.ON_DEMAND, "2.20")]
    usage = {"partner": PoolUsage(month_slot_hours=Decimal(20 * daily))}
    experience = Experience(pool_days={"partner": lived})
    seen = outlook(some, usage, TRAIN, experience, NOW)
    offer, _ = make_offers(seen.pools, usage=seen.usage, free_slots={}, task=TRAIN, now=NOW)
    share = (float(offer.marginal_usd_per_hour) - 0.2) / 3
    assert least - 1e-3 <= share <= most + 1e-3
    assert taken(some, experience, usage) == goes_to


def test_a_spot_pool_that_keeps_taking_capacity_back_is_left() -> None:
    some = [a_pool("a", Market.SPOT, "1.00"), a_pool("b", Market.SPOT, "1.10")]
    assert taken(some, Experience()) == "a"
    assert taken(some, Experience(pool_days={"a": days(60, 40), "b": days(0, 40)})) == "b"


def test_a_machine_that_has_shown_to_be_fast_wins() -> None:
    some = [
        a_pool("known", Market.ON_DEMAND, "2.00"),
        a_pool("other", Market.ON_DEMAND, "2.00", accelerator="V100"),
    ]
    fast = [
        SpeedSample(
            workload="gpt",
            accelerator="V100",
            accelerator_count=1,
            speed=3.0,
            hours=2.0,
            measured_at=NOW - HOUR,
        )
    ] * 3
    assert taken(some, Experience()) == "known"
    assert taken(some, Experience(speeds=fast)) == "other"


def test_a_contract_that_will_be_used_up_anyway_is_left_to_cheaper_capacity() -> None:
    owed = MonthlyMinimum(
        slot_hours=Decimal(3100),
        usd_per_slot_hour=Decimal(1),
        overage_usd_per_slot_hour=Decimal(3),
    )
    contract = replace(a_pool("contract", Market.PARTNER, "3.00"), commitment=owed)
    some = [contract, a_pool("on_demand", Market.ON_DEMAND, "2.00")]
    used = {"contract": PoolUsage(month_slot_hours=Decimal(2000))}
    assert taken(some, Experience(pool_days={"contract": days(0, 20.0, 20)}), used) == "contract"
    assert taken(some, Experience(pool_days={"contract": days(0, 180.0, 20)}), used) == "on_demand"


def test_a_block_that_is_over_has_no_room() -> None:
    block = CapacityBlock(
        usd_per_slot_hour=Decimal(1), starts_at=NOW - 48 * HOUR, ends_at=NOW + 48 * HOUR
    )
    some = [
        replace(a_pool("block", Market.RESERVED, "1.00"), commitment=block),
        a_pool("on_demand", Market.ON_DEMAND, "2.00"),
    ]
    assert taken(some, Experience()) == "block"
    over = replace(block, ends_at=NOW)
    assert taken([replace(some[0], commitment=over), some[1]], Experience()) == "on_demand"


@given(st.lists(pools(), max_size=3, unique_by=lambda pool: pool.name), tasks(), usages(), instants)
def test_without_experience_only_what_is_unknown_is_filled_in(
    some: list[Pool], task: TaskSpec, used: PoolUsage, now: datetime
) -> None:
    plain = replace(task, resources=Resources())
    seen = outlook(some, {pool.name: used for pool in some}, plain, Experience(), now)
    assert [pool.name for pool in seen.pools] == [pool.name for pool in some]
    for before, after in zip(some, seen.pools, strict=True):
        rate = after.preemptions_per_hour
        assert rate is not None
        assert after.speed == before.speed
        if before.preemptions_per_hour is not None:
            assert abs(rate - before.preemptions_per_hour) <= 1e-9 * rate
