"""Waiting for committed hours that will be free: when, where, and what it saves."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.model import (
    CapacityBlock,
    Estimate,
    HourlyCommitment,
    Market,
    Offer,
    PassedOver,
    Placement,
    Pool,
    Resources,
    SlotInterval,
    TaskSpec,
)
from spillway.placement.shifting import (
    WEEKS_BACK,
    RoomAhead,
    later_start,
    room_ahead,
    usual_use,
    waiting,
)

NOW = datetime(2026, 3, 4, 18, 20, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)
POOL = Pool(
    name="reserved",
    backend="fake",
    market=Market.RESERVED,
    slots=2,
    shape=Resources(),
    list_usd_per_hour=Decimal(10),
    commitment=HourlyCommitment(usd_per_slot_hour=Decimal(6)),
)
RESERVED = Offer(
    pool="reserved",
    backend="fake",
    market=Market.RESERVED,
    region="local",
    shape=Resources(),
    free_slots=0,
    cooling_down=False,
    marginal_usd_per_hour=Decimal(0),
    effective_usd_per_hour=Decimal(6),
    list_usd_per_hour=Decimal(10),
    price_reason="owed already",
    preemptions_per_hour=0.0,
    restart_overhead=timedelta(0),
    grace_period=timedelta(0),
    speed=1.0,
)
ON_DEMAND = replace(
    RESERVED,
    pool="on_demand",
    market=Market.ON_DEMAND,
    free_slots=9,
    marginal_usd_per_hour=Decimal(10),
)
TASK = TaskSpec(entry_point="package.module:train", work=3 * HOUR, deadline=NOW + 16 * HOUR)
FREE = Estimate(leased=3 * HOUR, cost_usd=Decimal(0), checkpoint_interval=None)
NOW_ON_DEMAND = Placement(
    offer=ON_DEMAND,
    estimate=replace(FREE, cost_usd=Decimal(31)),
    reason="the only pool with room",
    passed_over=(
        PassedOver(offer=RESERVED, reason="has no free slot", can_wait=True, estimate=FREE),
    ),
    task=TASK,
    decided_at=NOW,
)


def nightly(
    start_hour: int, hours: int, *, weeks: int = WEEKS_BACK, slots: int = 2
) -> list[SlotInterval]:
    """Leases of every night of the last weeks."""
    midnight = NOW.replace(hour=0, minute=0)
    starts = [midnight - timedelta(days=day) + start_hour * HOUR for day in range(1, 7 * weeks + 1)]
    return [SlotInterval(start=start, end=start + hours * HOUR, slots=slots) for start in starts]


def room(*free: int) -> RoomAhead:
    return RoomAhead(pool="reserved", since=NOW.replace(minute=0), free=free)


def test_hours_after_the_open_leases_end_are_free() -> None:
    """Both slots are taken, one until 20:30 and one until 02:00."""
    taken = [
        SlotInterval(start=NOW - HOUR, end=NOW.replace(hour=20, minute=30), is_open=True),
        SlotInterval(
            start=NOW - HOUR, end=NOW.replace(hour=2, minute=0) + timedelta(days=1), is_open=True
        ),
    ]
    ahead = room_ahead(POOL, taken, NOW, NOW + 10 * HOUR)
    assert ahead.since == NOW.replace(minute=0)
    assert ahead.free[:10] == (0, 0, 0, 1, 1, 1, 1, 1, 2, 2)


def test_hours_that_are_taken_every_night_are_not_free() -> None:
    ahead = room_ahead(POOL, nightly(22, 4), NOW, NOW + 10 * HOUR)
    assert ahead.free[:10] == (2, 2, 2, 2, 0, 0, 0, 0, 2, 2)


def test_one_busy_night_of_four_is_reckoned_with() -> None:
    ahead = room_ahead(POOL, nightly(22, 4, weeks=1), NOW, NOW + 10 * HOUR)
    assert ahead.free[4] < 2


@pytest.mark.parametrize("weeks", [1, 2, 3, WEEKS_BACK])
def test_a_pattern_is_known_in_full_after_its_first_week(weeks: int) -> None:
    usual = usual_use(nightly(22, 4, weeks=weeks, slots=100), NOW)
    for hour in range(7 * 24):
        expected = 100.0 if hour % 24 in (22, 23, 0, 1) else 0.0
        assert usual.get(hour, 0.0) == pytest.approx(expected)


def test_weeks_without_a_lease_count_once_there_was_one() -> None:
    """Of three Mondays since the first lease one had its night."""
    once = SlotInterval(start=NOW - 22 * 24 * HOUR, end=NOW - 22 * 24 * HOUR + HOUR)
    usual = usual_use([once, *nightly(22, 4, weeks=1, slots=100)], NOW)
    assert usual[22] == pytest.approx(100 / 3 + 100 * math.sqrt(2) / 3)
    assert usual_use([], NOW) == {}


def test_what_another_task_waits_for_is_not_free() -> None:
    plan = later_start(TASK, NOW_ON_DEMAND, [room(0, 0, 2, 2, 2, 2)], NOW)
    assert plan is not None
    planned = waiting(NOW_ON_DEMAND, plan, [], NOW).planned
    assert planned is not None
    assert (planned.start - NOW.replace(minute=0), planned.end - planned.start) == (
        2 * HOUR,
        3 * HOUR,
    )
    elsewhere = replace(planned, pool="another")
    both = [planned, replace(planned, slots=2), elsewhere]
    for others, free in (
        ([elsewhere], (2,) * 6),
        ([planned], (2, 2, 1, 1, 1, 2)),
        (both, (2, 2, 0, 0, 0, 2)),
    ):
        assert room_ahead(POOL, [], NOW, NOW + 5 * HOUR, planned=others).free == free


def test_a_block_that_ends_has_no_room_after_it() -> None:
    block = CapacityBlock(
        usd_per_slot_hour=Decimal(6), starts_at=NOW - HOUR, ends_at=NOW + 3 * HOUR
    )
    ahead = room_ahead(replace(POOL, commitment=block), [], NOW, NOW + 6 * HOUR)
    assert ahead.free[0] == 2
    assert ahead.free[-1] == 0


def test_the_plan_says_where_when_and_what_it_saves() -> None:
    taken = nightly(18, 8)
    plan = later_start(TASK, NOW_ON_DEMAND, [room_ahead(POOL, taken, NOW, NOW + 16 * HOUR)], NOW)
    assert plan is not None
    assert plan.reason == "start Thu 02:00 UTC on reserved, saves $31.00"


def test_a_plan_to_wait_keeps_every_reason_and_asks_again() -> None:
    ahead = [room(0, 0, 2, 2, 2, 2)]
    plan = later_start(TASK, NOW_ON_DEMAND, ahead, NOW)
    assert plan is not None
    unplaced = waiting(NOW_ON_DEMAND, plan, ahead, NOW)
    assert unplaced.can_wait
    assert unplaced.until == NOW + timedelta(minutes=10)
    assert [p.offer.pool for p in unplaced.passed_over] == ["on_demand", "reserved"]
    assert "saves $31.00, against $31.00 here now" in unplaced.passed_over[0].reason


@pytest.mark.parametrize(
    ("free", "why"),
    [
        ((0,) * 16, "never free"),
        ((0, 2, 2, 0, 2, 2, 0), "never free for as long as it takes"),
        ((0,) * 14 + (2,) * 10, "free too late"),
    ],
)
def test_a_task_does_not_wait_where_that_leads_nowhere(free: tuple[int, ...], why: str) -> None:
    assert later_start(TASK, NOW_ON_DEMAND, [room(*free)], NOW) is None, why


def test_a_task_without_a_deadline_does_not_wait() -> None:
    task = replace(TASK, deadline=None)
    assert later_start(task, NOW_ON_DEMAND, [room(0, 2, 2, 2, 2)], NOW) is None


def test_a_pool_that_others_have_filled_is_not_foreseen() -> None:
    """By our books it is free now, by its provider it is not."""
    assert later_start(TASK, NOW_ON_DEMAND, [room(2, 2, 2, 2, 2)], NOW) is None


def test_nobody_waits_for_a_cent() -> None:
    cheap = replace(NOW_ON_DEMAND, estimate=replace(FREE, cost_usd=Decimal("0.009")))
    assert later_start(TASK, cheap, [room(0, 2, 2, 2, 2)], NOW) is None


def test_a_gang_waits_until_there_is_room_for_all_of_it() -> None:
    ahead = [room(0, 1, 1, 1, 1, 2, 2, 2, 2)]
    one = later_start(TASK, NOW_ON_DEMAND, ahead, NOW)
    two = later_start(replace(TASK, nodes=2), NOW_ON_DEMAND, ahead, NOW)
    assert one is not None
    assert two is not None
    assert (one.start_at.hour, two.start_at.hour) == (19, 23)


def test_a_pool_refused_for_good_is_not_waited_for() -> None:
    refused = PassedOver(offer=RESERVED, reason="belongs to another", estimate=None)
    decision = replace(NOW_ON_DEMAND, passed_over=(refused,))
    assert later_start(TASK, decision, [room(0, 2, 2, 2, 2)], NOW) is None


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.integers(1, 3),
    st.integers(1, 300),
    st.integers(0, 40 * 60),
)
def test_every_plan_has_room_and_can_still_go_on_as_if_it_had_not_waited(
    free: list[int], nodes: int, minutes: int, slack: int
) -> None:
    leased = timedelta(minutes=minutes)
    task = replace(TASK, nodes=nodes, deadline=NOW + leased + timedelta(minutes=slack))
    there = replace(FREE, leased=leased)
    decision = replace(
        NOW_ON_DEMAND,
        estimate=replace(there, cost_usd=Decimal(5)),
        passed_over=(replace(NOW_ON_DEMAND.passed_over[0], estimate=there),),
    )
    free = [0, *free]
    plan = later_start(task, decision, [room(*free)], NOW)
    fits = [
        start
        for number in range(len(free))
        if (start := max(NOW.replace(minute=0) + number * HOUR, NOW)) + leased <= task.deadline  # type: ignore[operator]  # it has one
        and all(
            free[hour] >= nodes if hour < len(free) else False
            for hour in range(number, -((NOW.replace(minute=0) - start - leased) // HOUR))
        )
    ]
    assert (plan.start_at if plan else None) == min(fits, default=None)
