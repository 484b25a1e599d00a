from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import SpecError
from spillway.workloads.prefetch import Prefetch

STOP = 12


@given(st.integers(0, 5), st.lists(st.integers(0, STOP - 1), min_size=1, max_size=3))
def test_each_step_gets_its_own_whatever_is_made_ahead(ahead: int, starts: list[int]) -> None:
    made: list[int] = []

    def make(step: int) -> str:
        made.append(step)
        return f"batch {step}"

    batches = Prefetch(make, ahead=ahead, stop=STOP)
    for start in starts:  # as a run that is resumed, or put back
        for step in range(start, STOP):
            assert batches.take(step) == f"batch {step}"
    assert max(made) == STOP - 1


def test_the_next_ones_are_made_while_nobody_asks() -> None:
    made = [threading.Event() for _ in range(STOP)]
    batches = Prefetch(lambda step: made[step].set(), ahead=2, stop=STOP)
    batches.take(0)
    assert made[1].wait(30)
    assert made[2].wait(30)
    assert not made[3].is_set()


def test_what_goes_wrong_is_raised_where_it_is_asked_for() -> None:
    def make(step: int) -> int:
        if step == 1:
            raise OSError("the disk is gone")
        return step

    batches = Prefetch(make, ahead=2, stop=STOP)
    assert batches.take(0) == 0
    with pytest.raises(OSError, match="the disk is gone"):
        batches.take(1)
    assert batches.take(2) == 2


def test_less_than_nothing_ahead_is_refused() -> None:
    with pytest.raises(SpecError, match="give 0 or more"):
        Prefetch(str, ahead=-1, stop=STOP)
