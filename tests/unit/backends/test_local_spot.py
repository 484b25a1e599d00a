from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.backends.local.options import Hazard, Lifetimes, Trace
from spillway.backends.local.spot import (
    draw_lifetime,
    end_of_up,
    has_capacity,
    is_up,
    taken_back_at,
)

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TRACE = ((10.0, 5.0), (20.0, 1.0))

lengths = st.integers(min_value=0, max_value=20).map(float)
traces = st.lists(st.tuples(lengths, lengths), min_size=1, max_size=6).map(tuple)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "up"),
    [
        (0, True),
        (9.9, True),
        (10, False),
        (14.9, False),
        (15, True),
        (34.9, True),
        (35, False),
        (36, True),
        (1e6, True),
    ],
)
def test_a_trace_says_when_there_is_capacity(seconds: float, up: bool) -> None:
    assert is_up(TRACE, seconds) is up


@pytest.mark.parametrize(
    ("seconds", "end"), [(0, 10), (9.9, 10), (12, 12), (15, 35), (36, None), (1e6, None)]
)
def test_a_trace_says_when_capacity_goes(seconds: float, end: float | None) -> None:
    assert end_of_up(TRACE, seconds) == end


@given(traces, st.integers(min_value=0, max_value=150))
def test_capacity_lasts_until_its_end_and_not_longer(
    trace: tuple[tuple[float, float], ...], start: int
) -> None:
    """Seconds are walked through one by one, which is another way to the same answer."""
    horizon = int(sum(up + down for up, down in trace)) + 1
    first_down = next((t for t in range(start, horizon) if not is_up(trace, t)), None)
    assert end_of_up(trace, start) == first_down


def test_speed_makes_the_pools_time_pass_faster() -> None:
    trace = Trace(trace=TRACE, speed=10.0)
    assert taken_back_at(trace, began_at=BEGAN, launched_at=at(0.5), ordinal=0) == at(1.0)
    assert not has_capacity(trace, began_at=BEGAN, now=at(1.2), launches=0)
    assert has_capacity(trace, began_at=BEGAN, now=at(1.6), launches=0)


def test_a_clock_set_back_finds_the_pool_at_its_start() -> None:
    trace = Trace(trace=TRACE)
    assert has_capacity(trace, began_at=BEGAN, now=at(-100), launches=0)
    assert taken_back_at(trace, began_at=BEGAN, launched_at=at(-100), ordinal=0) == at(10)


def test_a_pool_without_interruptions_takes_nothing_back() -> None:
    assert has_capacity(None, began_at=BEGAN, now=at(5), launches=0)
    assert taken_back_at(None, began_at=BEGAN, launched_at=at(5), ordinal=3) is None


def test_a_hazard_gives_each_launch_a_lifetime_of_its_own() -> None:
    hazard = Hazard(preemptions_per_hour=6.0, seed=7, speed=60.0)
    ends = [taken_back_at(hazard, began_at=BEGAN, launched_at=at(1), ordinal=n) for n in range(50)]
    assert len(set(ends)) == 50
    assert ends[3] == taken_back_at(hazard, began_at=BEGAN, launched_at=at(1), ordinal=3)
    assert ends[3] == at(1) + draw_lifetime(7, 3, 6.0) / 60


def test_lifetimes_count_from_each_launch_and_the_pool_is_gone_after_the_last() -> None:
    lifetimes = Lifetimes(lifetimes=(10.0, 20.0), speed=10.0)
    ends = [
        taken_back_at(lifetimes, began_at=BEGAN, launched_at=at(100), ordinal=n) for n in range(3)
    ]
    assert ends == [at(101), at(102), at(100)]
    up = [has_capacity(lifetimes, began_at=BEGAN, now=at(1e6), launches=n) for n in range(3)]
    assert up == [True, True, False]


def test_lifetimes_are_exponential() -> None:
    """Mean and share of survivors at the mean, each within four standard errors."""
    count, rate = 4000, 0.5
    hours = [draw_lifetime(1, n, rate) / timedelta(hours=1) for n in range(count)]
    assert abs(sum(hours) / count - 1 / rate) < 4 / rate / math.sqrt(count)
    survivors = sum(hour > 1 / rate for hour in hours) / count
    assert abs(survivors - math.exp(-1)) < 4 * 0.5 / math.sqrt(count)


@given(st.integers(), st.integers(min_value=0), st.floats(min_value=1e-300, max_value=1e9))
def test_every_lifetime_can_be_added_to_a_date(seed: int, ordinal: int, rate: float) -> None:
    assert BEGAN <= BEGAN + draw_lifetime(seed, ordinal, rate) < BEGAN + timedelta(days=366)
