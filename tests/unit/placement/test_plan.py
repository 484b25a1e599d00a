"""A queue placed together: as brute force would, and never worse than one task after the other."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from spillway.model import Market, Offer, Placement, Resources, TaskSpec, Unplaced
from spillway.placement.again import recompute
from spillway.placement.assign import NOBODY, assign
from spillway.placement.choose import choose
from spillway.placement.plan import Plan, left_beside, plan, plan_from
from spillway.placement.table_choice import table_of
from spillway.testing.strategies import offers

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

# Few slots, few prices, several speeds and shapes: tasks get into each other's way.
scarce_offers = st.builds(
    replace,
    offers(),
    shape=st.sampled_from([Resources(cpus=1), Resources(cpus=8)]),
    free_slots=st.integers(0, 3),
    quota_slots=st.sampled_from([None, None, 1]),
    cooling_down=st.just(False),
    marginal_usd_per_hour=st.sampled_from([Decimal(n) for n in ("0", "0.5", "1", "2.25", "7")]),
    preemptions_per_hour=st.just(0.0),
    restart_overhead=st.just(timedelta(0)),
    speed=st.sampled_from([0.5, 1.0, 2.0]),
    restore_usd_per_gib=st.just(Decimal(0)),
    save_usd_per_gib=st.just(Decimal(0)),
    storage_usd_per_gib_month=st.just(Decimal(0)),
)
offer_lists = st.lists(scarce_offers, max_size=4, unique_by=lambda offer: offer.pool)
some_tasks = st.builds(
    TaskSpec,
    entry_point=st.just("package.module:function"),
    resources=st.sampled_from([Resources(cpus=1), Resources(cpus=4)]),
    work=st.sampled_from([HOUR, 2 * HOUR, 5 * HOUR]),
    markets=st.sampled_from([frozenset(Market), frozenset({Market.SPOT, Market.ON_DEMAND})]),
    restart_overhead=st.just(timedelta(0)),
    deadline=st.sampled_from([None, None, NOW + 3 * HOUR]),
    max_cost_usd=st.sampled_from([None, None, Decimal(4)]),
    nodes=st.sampled_from([1, 1, 1, 2]),
)
task_lists = st.lists(some_tasks, max_size=4)


def one_at_a_time(tasks: Sequence[TaskSpec], candidates: Sequence[Offer]) -> Plan:
    left = list(candidates)
    decisions: list[Placement | Unplaced] = []
    for task in tasks:
        decision = choose(task, left, NOW)
        decisions.append(decision)
        if isinstance(decision, Placement):
            left = [_with_less(o, task.nodes) if o == decision.offer else o for o in left]
    return Plan(decisions=tuple(decisions))


def _with_less(offer: Offer, slots: int) -> Offer:
    quota = None if offer.quota_slots is None else offer.quota_slots - slots
    return replace(offer, free_slots=offer.free_slots - slots, quota_slots=quota)


def worth(one: Plan) -> tuple[int, timedelta, Decimal]:
    """Return how good a plan is; less is better."""
    return len(one.decisions) - one.placed, one.late, one.cost_usd


@settings(max_examples=100)
@given(task_lists, offer_lists)
def test_together_is_never_worse_than_one_at_a_time(
    tasks: list[TaskSpec], candidates: list[Offer]
) -> None:
    together, apart = plan(tasks, candidates, NOW), one_at_a_time(tasks, candidates)
    assert worth(together) <= worth(apart)
    event("better" if worth(together) < worth(apart) else "as good")


@given(task_lists, offer_lists)
def test_no_more_tasks_go_to_a_pool_than_it_has_room_for(
    tasks: list[TaskSpec], candidates: list[Offer]
) -> None:
    decisions = plan(tasks, candidates, NOW).decisions
    taken = [
        decision.offer.pool
        for task, decision in zip(tasks, decisions, strict=True)
        if isinstance(decision, Placement)
        for _ in range(task.nodes)
    ]
    for offer in candidates:
        room = min(offer.free_slots, math.inf if offer.quota_slots is None else offer.quota_slots)
        assert taken.count(offer.pool) <= room


@given(task_lists, offer_lists)
def test_a_line_that_asks_one_by_one_is_never_promised_one_slot_twice(
    tasks: list[TaskSpec], candidates: list[Offer]
) -> None:
    """Each sees what the others leave it: what all of them take together is there, and whoever comes first is served."""
    line = [(task, candidates) for task in tasks]
    alone = [choose(task, candidates, NOW) for task in tasks]
    chosen = [
        choose(task, left_beside(line, number, NOW), NOW) for number, task in enumerate(tasks)
    ]
    for offer in candidates:
        room = min(offer.free_slots, math.inf if offer.quota_slots is None else offer.quota_slots)
        taken = [
            task.nodes
            for task, one in zip(tasks, chosen, strict=True)
            if isinstance(one, Placement) and one.offer.pool == offer.pool
        ]
        assert sum(taken) <= room
    for before, here in zip(alone[:1], chosen[:1], strict=True):
        assert isinstance(here, Placement) == isinstance(before, Placement)
    if tasks and all(task.nodes == 1 for task in tasks):
        together = plan(tasks, candidates, NOW).placed
        assert sum(isinstance(one, Placement) for one in chosen) == together


@settings(max_examples=200)
@given(task_lists, offer_lists, scarce_offers)
def test_one_more_offer_never_makes_a_line_dearer(
    tasks: list[TaskSpec], candidates: list[Offer], more: Offer
) -> None:
    """Whoever had a place has one still, and what all of them cost together is no more."""
    alone = [replace(task, nodes=1) for task in tasks]
    with_more = [*candidates, replace(more, pool=f"{more.pool}, one more")]
    before, after = (
        Plan(
            decisions=tuple(
                choose(task, left_beside([(each, some) for each in alone], number, NOW), NOW)
                for number, task in enumerate(alone)
            )
        )
        for some in (candidates, with_more)
    )
    assert worth(after) <= worth(before)
    for one, other in zip(before.decisions, after.decisions, strict=True):
        assert isinstance(other, Placement) or isinstance(one, Unplaced)
    event("better" if worth(after) < worth(before) else "as good")


@given(task_lists, offer_lists, st.randoms(use_true_random=False))
def test_the_order_of_offers_is_irrelevant(
    tasks: list[TaskSpec], candidates: list[Offer], rng: object
) -> None:
    shuffled = list(candidates)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(tasks, shuffled, NOW) == plan(tasks, candidates, NOW)


@given(task_lists, offer_lists)
def test_every_decision_of_a_plan_can_be_made_again(
    tasks: list[TaskSpec], candidates: list[Offer]
) -> None:
    for decision in plan(tasks, candidates, NOW).decisions:
        assert recompute(decision) == decision
        named = [p.offer.pool for p in decision.passed_over]
        named += [decision.offer.pool] if isinstance(decision, Placement) else []
        assert sorted(named) == sorted(o.pool for o in candidates)


@settings(max_examples=100)
@given(task_lists, offer_lists)
def test_a_plan_from_columns_is_worth_as_much(
    tasks: list[TaskSpec], candidates: list[Offer]
) -> None:
    chosen = plan_from(table_of(candidates), tasks, NOW)
    from_columns = Plan(decisions=tuple(one.decision for one in chosen))
    expected = plan(tasks, candidates, NOW)
    assert from_columns.placed == expected.placed
    assert from_columns.late == expected.late
    assert float(from_columns.cost_usd) == pytest.approx(float(expected.cost_usd), abs=1e-4)


numbers = st.integers(0, 6).map(float)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    tasks, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    cells = st.lists(numbers, min_size=tasks * columns, max_size=tasks * columns)
    cost = np.array(draw(cells)).reshape(tasks, columns)
    late = np.array(draw(st.just([0.0] * tasks * columns) | cells)).reshape(tasks, columns)
    gone = draw(st.lists(st.booleans(), min_size=cost.size, max_size=cost.size))
    cost[np.array(gone).reshape(cost.shape)] = np.inf
    room = np.array(draw(st.lists(st.integers(0, 3), min_size=columns, max_size=columns)))
    sizes = st.sampled_from([1, 1, 2, 3])
    nodes = st.just([1] * tasks) | st.lists(sizes, min_size=tasks, max_size=tasks)
    each = np.array(draw(nodes))
    cost[each[:, None] > room[None, :]] = np.inf  # as the filter has it
    return cost, late, room, each


def by_brute_force(
    cost: np.ndarray, late: np.ndarray, room: np.ndarray, nodes: np.ndarray
) -> tuple[int, float, float]:
    tasks, columns = cost.shape
    every = itertools.product(range(-1, columns), repeat=tasks)
    return min(value(taken, cost, late) for taken in every if fits(taken, room, nodes))


def fits(taken: Sequence[int], room: np.ndarray, nodes: np.ndarray) -> bool:
    return all(
        sum(n for at, n in zip(taken, nodes, strict=True) if at == column) <= room[column]
        for column in range(len(room))
    )


def value(taken: Sequence[int], cost: np.ndarray, late: np.ndarray) -> tuple[int, float, float]:
    placed = [(task, column) for task, column in enumerate(taken) if column != NOBODY]
    if any(not np.isfinite(cost[cell]) for cell in placed):
        return (len(taken) + 1, 0.0, 0.0)
    return (
        len(taken) - len(placed),
        float(sum(late[cell] for cell in placed)),
        float(sum(cost[cell] for cell in placed)),
    )


@settings(max_examples=100)
@given(problems())
def test_an_assignment_is_worth_what_brute_force_finds(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    cost, late, room, nodes = problem
    taken = assign(cost, late, room, nodes)
    assert fits(taken, room, nodes)
    assert value(taken, cost, late) == pytest.approx(by_brute_force(cost, late, room, nodes))


def test_a_scarce_slot_goes_to_the_task_that_would_pay_most_without_it(offer: Offer) -> None:
    free = replace(offer, pool="reserved", marginal_usd_per_hour=Decimal(0))
    plenty = replace(offer, pool="on_demand", marginal_usd_per_hour=Decimal(1), free_slots=9)
    short, long = (
        TaskSpec(entry_point="a:b", resources=offer.shape, work=hours * HOUR) for hours in (1, 10)
    )
    decisions = plan([short, long], [free, plenty], NOW).decisions
    assert [d.offer.pool for d in decisions if isinstance(d, Placement)] == [
        "on_demand",
        "reserved",
    ]
    assert one_at_a_time([short, long], [free, plenty]).cost_usd > Decimal(9)
    assert decisions[0].passed_over[0].reason == "has no free slot"


def test_a_deadline_comes_before_money(offer: Offer) -> None:
    quick = replace(offer, pool="quick", speed=2.0, marginal_usd_per_hour=Decimal(5))
    slow = replace(offer, pool="slow", marginal_usd_per_hour=Decimal(0))
    task = TaskSpec(entry_point="a:b", resources=offer.shape, work=4 * HOUR)
    due = replace(task, deadline=NOW + 3 * HOUR)
    decisions = plan([task, due], [quick, slow], NOW).decisions
    assert [d.offer.pool for d in decisions if isinstance(d, Placement)] == ["slow", "quick"]


def test_an_empty_queue_is_a_plan_of_nothing(offer: Offer) -> None:
    assert plan([], [offer], NOW) == Plan(decisions=())
    assert plan([TaskSpec(entry_point="a:b")], [], NOW).placed == 0
