"""Which offers can take a task: every reason by itself, and several together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from spillway.model import Market, Offer, Resources, TaskSpec
from spillway.placement.feasible import refusal
from spillway.testing.strategies import instants, offers, tasks

GPU = Resources(cpus=8, memory_gib=64, accelerator="L4", accelerator_count=1)


def reason(task: TaskSpec, offer: Offer, now: datetime) -> str:
    no = refusal(task, offer, now)
    return "" if no is None else no.reason


def test_an_offer_that_fits_is_not_refused(task: TaskSpec, offer: Offer, now: datetime) -> None:
    assert refusal(task, offer, now) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"markets": frozenset({Market.SPOT})}, "is bought as on_demand; the task allows spot"),
        ({"markets": frozenset()}, "the task allows none"),
        ({"resources": Resources(cpus=4)}, "has 2 CPUs of 4 needed"),
        ({"resources": Resources(memory_gib=9)}, "has 8 GiB of memory of 9 needed"),
        ({"resources": GPU}, "has no accelerator, not L4"),
        ({"resources": Resources(accelerator_count=2)}, "has 0 accelerators of 2 needed"),
        (
            {"max_usd_per_hour": Decimal("0.09")},
            "asks $0.1000/h; the task allows at most $0.0900/h",
        ),
    ],
)
def test_a_task_that_asks_for_more_is_refused_for_it(
    changes: dict[str, Any], said: str, task: TaskSpec, offer: Offer, now: datetime
) -> None:
    no = refusal(replace(task, **changes), offer, now)
    assert no is not None
    assert said in no.reason
    assert not no.can_wait


@pytest.mark.parametrize(
    ("said_ago", "said"),
    [(None, "as configured"), (40, "as fake said 40 s ago")],
)
def test_slots_that_end_take_what_is_done_or_saved_before(
    said_ago: int | None, said: str, task: TaskSpec, offer: Offer, now: datetime
) -> None:
    hour = timedelta(hours=1)
    said_at = None if said_ago is None else now - timedelta(seconds=said_ago)
    ends = replace(offer, backend="fake", end_said_at=said_at, ends_at=now + 3 * hour)
    fixed = replace(task, checkpoints=False, work=2 * hour)
    assert refusal(fixed, ends, now) is None
    no = refusal(replace(fixed, work=4 * hour), ends, now)
    assert no is not None
    assert f"UTC {said}, in 3.0 h; the task takes 4.0 h and saves no checkpoints" in no.reason
    assert not no.can_wait
    moved = replace(task, checkpoints=True, work=400 * hour)
    assert refusal(moved, ends, now) is None
    soon = replace(ends, ends_at=now + timedelta(seconds=1))
    assert "the task's first checkpoint takes" in reason(moved, soon, now)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (replace(GPU, accelerator="T4"), "has T4, not L4"),
        (replace(GPU, accelerator_count=1), "has 1 accelerators of 2 needed"),
        (replace(GPU, accelerator_count=4), ""),
    ],
)
def test_accelerators_match_by_model_and_count(
    shape: Resources, said: str, task: TaskSpec, offer: Offer, now: datetime
) -> None:
    wanted = replace(task, resources=replace(GPU, accelerator_count=2))
    assert reason(wanted, replace(offer, shape=shape), now) == said


def test_a_task_that_asks_for_exactly_what_is_there_fits(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    exact = replace(task, resources=offer.shape, max_usd_per_hour=offer.marginal_usd_per_hour)
    assert refusal(exact, offer, now) is None


@pytest.mark.parametrize(("left", "fits"), [("2:30", True), ("2:29", False)])
def test_a_deadline_that_even_an_undisturbed_run_misses_is_refused(
    left: str, fits: bool, task: TaskSpec, offer: Offer, now: datetime
) -> None:
    hours, minutes = left.split(":")
    due = replace(task, deadline=now + timedelta(hours=int(hours), minutes=int(minutes)))
    slow_start = replace(offer, restart_overhead=timedelta(minutes=30))
    assert (refusal(due, slow_start, now) is None) == fits


def test_a_deadline_already_past_is_refused(task: TaskSpec, offer: Offer, now: datetime) -> None:
    late = replace(task, deadline=now - timedelta(hours=1))
    assert "the deadline is in 0 s" in reason(late, offer, now)


@pytest.mark.parametrize(
    ("work_hours", "speed", "checkpoints", "fits"),
    [
        (4.0, 1.0, False, True),  # exactly 1/h
        (4.1, 1.0, False, False),
        (4.1, 2.0, False, True),  # a faster machine is done in time
        (400.0, 1.0, True, True),
    ],
)
def test_long_work_without_checkpoints_is_refused_where_capacity_is_taken_back(
    work_hours: float,
    speed: float,
    checkpoints: bool,
    fits: bool,
    task: TaskSpec,
    offer: Offer,
    now: datetime,
) -> None:
    work = replace(task, work=timedelta(hours=work_hours), checkpoints=checkpoints)
    spot = replace(offer, market=Market.SPOT, preemptions_per_hour=0.25, speed=speed)
    said = reason(work, spot, now)
    assert (said == "") == fits
    assert fits or "about every 4.0 h, and the task works 4.1 h without checkpoints" in said


def test_a_run_that_would_hardly_ever_end_is_refused(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    hopeless = replace(task, checkpoint_write=timedelta(hours=3))
    no = refusal(hopeless, replace(offer, preemptions_per_hour=60.0), now)
    assert no is not None
    assert "preempted so often" in no.reason


@pytest.mark.parametrize("changes", [{"free_slots": 0}, {"cooling_down": True}])
def test_a_lack_of_room_can_be_waited_for(
    changes: dict[str, Any], task: TaskSpec, offer: Offer, now: datetime
) -> None:
    no = refusal(task, replace(offer, **changes), now)
    assert no is not None
    assert no.can_wait


def test_waiting_for_room_is_not_offered_where_something_else_is_wrong(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    no = refusal(replace(task, resources=GPU), replace(offer, free_slots=0), now)
    assert no is not None
    assert not no.can_wait
    assert "slot" not in no.reason


def test_a_gang_needs_a_free_slot_for_each_of_its_nodes(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    gang = replace(task, nodes=3)
    assert refusal(gang, replace(offer, free_slots=3, slots=3), now) is None
    for short, said in (
        ({"free_slots": 2}, "has 2 free slots of 3 needed at once"),
        ({"free_slots": 0}, "has no free slot"),
        ({"free_slots": 9, "quota_slots": 1}, "has 1 slots left of the provider's quota, of 3"),
    ):
        no = refusal(gang, replace(offer, **short), now)
        assert no is not None
        assert no.can_wait
        assert said in no.reason


def test_waiting_makes_no_pool_large_enough_for_a_gang(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    no = refusal(replace(task, nodes=3), replace(offer, free_slots=2, slots=2), now)
    assert no is not None
    assert not no.can_wait
    assert no.reason == "has 2 slots in all, of 3 needed at once"
    nobody = refusal(replace(task, nodes=0), offer, now)
    assert nobody is not None
    assert "at least one" in nobody.reason


def test_a_gang_is_unprotected_as_many_times_as_soon(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    spot = replace(offer, market=Market.SPOT, preemptions_per_hour=0.25, free_slots=4)
    work = replace(task, work=timedelta(hours=1.5), checkpoints=False)
    assert refusal(replace(work, nodes=2), spot, now) is None
    no = refusal(replace(work, nodes=4), spot, now)
    assert no is not None
    assert "about every 60 min" in no.reason


def test_all_that_is_wrong_is_said_at_once(task: TaskSpec, offer: Offer, now: datetime) -> None:
    said = reason(replace(task, resources=Resources(cpus=4, memory_gib=99)), offer, now)
    assert said == "has 2 CPUs of 4 needed; has 8 GiB of memory of 99 needed"


@given(tasks(), offers(), instants)
def test_what_is_missing_is_room_exactly_when_room_would_do(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    no = refusal(task, offer, now)
    roomy = refusal(task, replace(offer, free_slots=task.nodes, cooling_down=False), now)
    assert (no is None or no.can_wait) == (roomy is None)
