"""Expected leased time against worked examples, its limits and a simulation."""

from __future__ import annotations

import math
import random
import statistics
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spillway.model import Market, Offer, Pool, Resources, TaskSpec
from spillway.placement.recovery import (
    LONGEST_RUN,
    MOST_EVENTS,
    expected_course,
    expected_hours,
    expected_preemptions,
)
from spillway.testing.strategies import offers, tasks

hours = st.floats(1e-3, 1e3)
hazards = st.floats(0, 10)


def simulated_hours(
    rng: random.Random,
    *,
    segments: int,
    hazard: float,
    restart: float,
    write: float,
    interval: float,
) -> float:
    """Do one run segment by segment, drawing when each machine is taken away."""
    clock = 0.0
    for _ in range(segments):
        while (alive := rng.expovariate(hazard)) < interval + write:
            clock += alive + restart
        clock += interval + write
    return clock


def test_the_worked_check_of_the_design() -> None:
    leased = expected_hours(work=48.5, hazard=0.15, restart=0.25, write=1 / 60, interval=0.5)
    assert leased == pytest.approx(54.1, abs=0.05)


@pytest.mark.parametrize(
    ("hazard", "restart", "write", "interval"),
    [
        (0.15, 0.25, 1 / 60, 0.5),
        (2.0, 0.05, 0.01, 0.1),
        (0.5, 1.0, 0.0, 2.0),
        (6.0, 0.0, 0.05, 0.3),
    ],
)
def test_a_simulation_agrees_within_its_error(
    hazard: float, restart: float, write: float, interval: float
) -> None:
    rng, segments = random.Random(20), 10
    runs = [
        simulated_hours(
            rng, segments=segments, hazard=hazard, restart=restart, write=write, interval=interval
        )
        for _ in range(4000)
    ]
    error = statistics.stdev(runs) / math.sqrt(len(runs))
    formula = expected_hours(
        work=segments * interval, hazard=hazard, restart=restart, write=write, interval=interval
    )
    assert abs(statistics.fmean(runs) - formula) < 4 * error


@given(work=hours, restart=hours, write=hours, interval=hours)
def test_without_preemptions_only_the_writes_are_added(
    work: float, restart: float, write: float, interval: float
) -> None:
    leased = expected_hours(work=work, hazard=0, restart=restart, write=write, interval=interval)
    assert leased == pytest.approx(work * (interval + write) / interval, rel=1e-12)


@given(work=hours, restart=hours, write=hours, interval=hours, tiny=st.floats(5e-324, 1e-12))
def test_the_limit_of_no_preemptions_is_reached_smoothly(
    work: float, restart: float, write: float, interval: float, tiny: float
) -> None:
    never = expected_hours(work=work, hazard=0, restart=restart, write=write, interval=interval)
    rarely = expected_hours(work=work, hazard=tiny, restart=restart, write=write, interval=interval)
    assert rarely == pytest.approx(never, rel=1e-6)


@given(work=hours, restart=hours, write=hours, interval=hours, low=hazards, high=hazards)
def test_more_preemptions_never_take_less_time(
    work: float, restart: float, write: float, interval: float, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    assume(high > low * (1 + 1e-9))
    slow = expected_hours(work=work, hazard=high, restart=restart, write=write, interval=interval)
    fast = expected_hours(work=work, hazard=low, restart=restart, write=write, interval=interval)
    assert slow >= fast * (1 - 1e-12)


@given(work=hours, hazard=hazards, restart=hours, write=hours, interval=hours)
def test_restarts_take_their_time_as_often_as_there_are_preemptions(
    work: float, hazard: float, restart: float, write: float, interval: float
) -> None:
    often = expected_preemptions(work=work, hazard=hazard, write=write, interval=interval)
    assume(often < 1e6)
    run = {"work": work, "hazard": hazard, "write": write, "interval": interval}
    apart = expected_hours(restart=restart, **run) - expected_hours(restart=0, **run)
    rounding = 1e-9 * expected_hours(restart=restart, **run)
    assert apart == pytest.approx(restart * often, rel=1e-6, abs=rounding)


@given(tasks(), offers())
def test_a_run_has_a_finite_number_of_preemptions_and_checkpoints(
    task: TaskSpec, offer: Offer
) -> None:
    course = expected_course(task, offer)
    assert 0 <= course.preemptions <= MOST_EVENTS
    assert 0 <= course.checkpoints <= MOST_EVENTS
    assert (course.checkpoints > 0) == task.checkpoints


def test_a_segment_that_never_ends_takes_for_ever_instead_of_overflowing() -> None:
    assert expected_hours(work=1e4, hazard=60, restart=1, write=0, interval=1e4) == math.inf


@given(tasks(), offers())
def test_a_course_lasts_at_least_the_undisturbed_run(task: TaskSpec, offer: Offer) -> None:
    course = expected_course(task, offer)
    undisturbed = offer.restart_overhead + task.restart_overhead + task.work / offer.speed
    rounding = timedelta(microseconds=10)
    assert min(undisturbed, LONGEST_RUN) <= course.leased + rounding
    assert course.leased <= LONGEST_RUN


@given(tasks(), offers())
def test_only_a_task_that_saves_has_an_interval(task: TaskSpec, offer: Offer) -> None:
    course = expected_course(task, offer)
    assert (course.checkpoint_interval is not None) == task.checkpoints


def a_pool(market: Market, *, hazard: float | None) -> Pool:
    return Pool(
        name="pool",
        backend="local",
        market=market,
        slots=1,
        shape=Resources(),
        list_usd_per_hour=Decimal(0),
        preemptions_per_hour=hazard,
    )


def test_a_spot_pool_without_history_is_not_thought_perfect() -> None:
    task = TaskSpec(entry_point="a:b", work=timedelta(hours=4), checkpoints=True)
    new = expected_course(task, a_pool(Market.SPOT, hazard=None))
    perfect = expected_course(task, a_pool(Market.SPOT, hazard=0.0))
    assert new.leased > perfect.leased
