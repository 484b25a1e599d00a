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
    SaveCost,
    cadence,
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


costs = st.none() | st.builds(SaveCost, stall=writes, write=writes)


def test_saving_beside_the_work_is_worth_doing_more_often() -> None:
    # d = 1 s of stall, h = 0.15/h: sqrt(2 / 3600 / 0.15) h = 219 s, and not the 28 min of a minute's standstill.
    cost = SaveCost(stall=timedelta(seconds=1), write=timedelta(minutes=1))
    chosen = cadence(0.15, measured=cost)
    assert chosen.interval == pytest.approx(timedelta(seconds=219), abs=timedelta(seconds=1))
    assert chosen.expected_loss == chosen.interval / 2 + cost.write
    assert "1 s of work (measured)" in chosen.reason
    assert "0.15 times an hour" in chosen.reason
    # 1 s in 219 s, and 0.15 preemptions an hour that cost 169.5 s each.
    assert chosen.wasted == pytest.approx(1 / 219 + 0.15 * 169.5 / 3600, rel=0.01)


def test_what_was_asked_for_holds_until_a_save_has_been_measured() -> None:
    asked = timedelta(minutes=3)
    cost = SaveCost(stall=timedelta(seconds=1), write=timedelta(seconds=2))
    assert cadence(0.15, given=asked).interval == asked
    assert cadence(0.15, given=asked, measured=cost).interval != asked
    assert cadence(None, given=asked, measured=cost).interval == asked


@pytest.mark.parametrize(
    ("hazard", "write_s", "reason"),
    [
        (None, 1, "is unknown"),
        (0.0, 1, "hardly ever"),
        (1000.0, 0, "more often is never worth it"),
        (1000.0, 60, "takes that long to be written"),
    ],
)
def test_each_bound_gives_its_reason(hazard: float | None, write_s: float, reason: str) -> None:
    write = timedelta(seconds=write_s)
    chosen = cadence(hazard, measured=SaveCost(stall=timedelta(0), write=write))
    assert reason in chosen.reason


@given(st.none() | hazards, st.none() | durations(longest=timedelta(hours=2)), costs)
def test_no_save_is_due_before_the_last_is_written(
    hazard: float | None, given: timedelta | None, cost: SaveCost | None
) -> None:
    chosen = cadence(hazard, given=given, measured=cost)
    assert chosen.reason
    assert chosen.interval >= (cost.write if cost else timedelta(0))
    assert chosen.expected_loss >= chosen.interval / 2
    assert chosen.wasted is None or 0 <= chosen.wasted <= 1
