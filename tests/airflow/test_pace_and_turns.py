"""How often a pool is looked at, and whose output a look reads."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.airflow.pace import LONGEST_WISH, MAX_BACK_OFF, Pace
from spillway.airflow.turns import Turns
from spillway.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_SECONDS = 5.0


def middle(low: float, high: float) -> float:
    return (low + high) / 2


def shortest(low: float, _high: float) -> float:
    return low


def longest(_low: float, high: float) -> float:
    return high


def throttled(retry_after: timedelta | None = None) -> TransientError:
    return TransientError("too many requests", backend="fake", retry_after=retry_after)


def test_pauses_double_up_to_a_bound_and_halve_again() -> None:
    pace = Pace(POLL_SECONDS, middle)
    pauses = [pace.pause_seconds()]
    for _ in range(5):
        pace.was_hindered(throttled())
        pauses.append(pace.pause_seconds())
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0] == [*pauses[:4], *[5 * MAX_BACK_OFF] * 2]
    for _ in range(4):
        pace.went_well()
        pauses.append(pace.pause_seconds())
    assert pauses[6:] == [30.0, 15.0, 7.5, 5.0]


@pytest.mark.parametrize("draw", [shortest, longest])
def test_a_provider_is_not_asked_before_it_wants_to_be(
    draw: Callable[[float, float], float],
) -> None:
    pace = Pace(POLL_SECONDS, draw)
    wish = timedelta(minutes=3)
    pace.was_hindered(throttled(wish))
    assert wish <= timedelta(seconds=pace.pause_seconds()) <= 1.11 * wish
    pace.went_well()
    assert pace.pause_seconds() < 1.11 * POLL_SECONDS


def test_a_wish_beyond_reason_does_not_end_the_watch() -> None:
    pace = Pace(POLL_SECONDS, middle)
    pace.was_hindered(throttled(timedelta(days=365)))
    assert timedelta(seconds=pace.pause_seconds()) < 1.2 * LONGEST_WISH


def test_pauses_differ_so_that_many_triggerers_do_not_come_back_together() -> None:
    pace = Pace(POLL_SECONDS)
    pauses = {pace.pause_seconds() for _ in range(20)}
    assert len(pauses) > 1
    assert all(0.9 * POLL_SECONDS <= pause <= 1.1 * POLL_SECONDS for pause in pauses)


@given(at_once=st.integers(1, 7), waiting=st.integers(1, 30), whole=st.integers(1, 4))
def test_everybody_is_served_equally_often(at_once: int, waiting: int, whole: int) -> None:
    turns = Turns[int](at_once)
    served = Counter[int](dict.fromkeys(range(waiting), 0))
    for _ in range(waiting * whole):
        chosen = turns.take(range(waiting))
        assert len(chosen) == min(at_once, waiting) == len(set(chosen))
        served.update(chosen)
    assert max(served.values()) - min(served.values()) <= 1


def test_the_urgent_go_first_and_the_others_wait_no_longer_for_it_than_they_must() -> None:
    turns = Turns[str](2)
    assert turns.take("abcd", "dcba".index) == ["d", "c"]
    assert turns.take("abcd") == ["a", "b"]
    assert turns.take("abcd") == ["d", "c"]


def test_those_that_are_gone_are_forgotten() -> None:
    turns = Turns[str](1)
    assert [turns.take("ab"), turns.take("a"), turns.take("ab")] == [["a"], ["a"], ["b"]]
