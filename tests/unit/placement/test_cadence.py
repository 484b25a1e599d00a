"""How often a task saves: near the optimum where it is known, and always within bounds."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.placement.cadence import (
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    UNKNOWN_HAZARD_INTERVAL,
    checkpoint_interval,
)
from spillway.placement.recovery import expected_hours
from spillway.testing.strategies import durations

writes = durations(longest=timedelta(minutes=10))
hazards = st.floats(0, 1000)


def test_the_interval_is_young_s() -> None:
    # d = 1 min, h = 0.15/h: sqrt(2 / 60 / 0.15) h = 0.4714 h.
    assert checkpoint_interval(timedelta(minutes=1), 0.15) == pytest.approx(
        timedelta(hours=0.4714), abs=timedelta(seconds=1)
    )


def test_an_unknown_hazard_saves_every_ten_minutes() -> None:
    assert checkpoint_interval(timedelta(seconds=1), None) == UNKNOWN_HAZARD_INTERVAL
    assert timedelta(minutes=10) == UNKNOWN_HAZARD_INTERVAL


def test_capacity_that_is_never_taken_back_still_saves_every_hour() -> None:
    assert checkpoint_interval(timedelta(seconds=1), 0.0) == LONGEST_INTERVAL


@given(writes, st.none() | hazards)
def test_the_interval_keeps_within_its_bounds(write: timedelta, hazard: float | None) -> None:
    interval = checkpoint_interval(write, hazard)
    assert max(SHORTEST_INTERVAL, write) <= interval <= max(LONGEST_INTERVAL, write)


@given(writes, hazards, hazards)
def test_more_preemptions_never_save_less_often(write: timedelta, a: float, b: float) -> None:
    assert checkpoint_interval(write, max(a, b)) <= checkpoint_interval(write, min(a, b))


@given(st.floats(0.01, 2.0), st.floats(1.0, 60.0))
def test_no_interval_is_much_better_than_the_one_returned(hazard: float, write_s: float) -> None:
    write = timedelta(seconds=write_s)
    ours = checkpoint_interval(write, hazard) / timedelta(hours=1)

    def leased(interval: float) -> float:
        return expected_hours(
            work=10, hazard=hazard, restart=0.1, write=write_s / 3600, interval=interval
        )

    best = min(leased(ours * factor) for factor in (0.25, 0.5, 0.7, 0.85, 1.2, 1.5, 2, 4))
    assert leased(ours) <= best * 1.05
