from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import SpecError
from spillway.workloads.sweeping.limits import (
    LEAST_TRIALS,
    Limits,
    Spent,
    expected_gain,
    parse_limits,
    reason_to_stop,
)

values = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30)


@given(values)
def test_a_gain_is_never_negative_and_is_the_same_for_the_best_being_the_largest(
    seen: list[float],
) -> None:
    gain = expected_gain(seen, mode="min")
    assert gain >= 0
    assert expected_gain([-value for value in seen], mode="max") == pytest.approx(gain)


@given(values, st.floats(0.1, 10), st.floats(-100, 100))
def test_a_gain_is_in_the_metrics_own_unit(seen: list[float], factor: float, shift: float) -> None:
    scaled = [factor * value + shift for value in seen]
    spread = max(map(abs, scaled)) + 1
    assert expected_gain(scaled, mode="min") == pytest.approx(
        factor * expected_gain(seen, mode="min"), rel=1e-3, abs=1e-6 * spread
    )


def test_the_expected_gain_is_what_many_draws_gain_on_average() -> None:
    seen = [0.0, 1.0, 2.0, 3.0, 4.0]
    draws = np.random.default_rng(0).normal(np.mean(seen), np.std(seen), 400_000)
    assert expected_gain(seen, mode="min") == pytest.approx(
        float(np.maximum(0 - draws, 0).mean()), rel=0.02
    )


def test_results_that_are_all_the_same_promise_nothing() -> None:
    assert expected_gain([2.0] * 9, mode="min") == 0


def reason(limits: Limits, spent: Spent, seen: list[float]) -> str | None:
    return reason_to_stop(limits, spent, values=seen, mode="min")


def test_a_sweep_without_limits_goes_on() -> None:
    assert reason(Limits(), Spent(seconds=1e9, marginal_usd=1e9), [1.0] * 99) is None


def test_time_and_money_end_it_when_they_are_spent() -> None:
    limits = Limits(max_seconds=60, max_usd=2)
    assert reason(limits, Spent(seconds=59, marginal_usd=1.99), []) is None
    assert "max_seconds" in str(reason(limits, Spent(seconds=60), []))
    assert "max_usd" in str(reason(limits, Spent(marginal_usd=2), []))


def test_it_ends_when_the_gain_no_longer_pays() -> None:
    seen = [0.0, 1.0, 2.0, 3.0, 4.0]
    gain = expected_gain(seen, mode="min")
    spent = Spent(marginal_usd=10.0)  # 2 USD a trial
    price = 2 / gain
    assert reason(Limits(usd_per_improvement=price * 1.01), spent, seen) is None
    told = reason(Limits(usd_per_improvement=price * 0.99), spent, seen)
    assert told is not None
    assert "one more trial costs about 2 USD" in told


def test_it_does_not_end_for_that_before_results_have_a_spread_nor_where_time_is_free() -> None:
    limits = Limits(usd_per_improvement=1e-9)
    few = [1.0] * (LEAST_TRIALS - 1)
    assert reason(limits, Spent(marginal_usd=5), few) is None
    assert reason(limits, Spent(), [1.0] * 50) is None
    assert reason(limits, Spent(marginal_usd=5), [1.0] * LEAST_TRIALS) is not None


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"max_seconds": 0}, "max_seconds is 0: give a number above 0"),
        ({"max_usd": math.inf}, "max_usd is inf"),
        ({"max_usd": "five"}, "max_usd is 'five'"),
        ({"stop_when": {"usd_per_improvement": -1}}, "usd_per_improvement is -1"),
        ({"stop_when": {"usd_per_improvement": True}}, "usd_per_improvement is True"),
        ({"stop_when": {"patience": 3}}, 'stop_when has patience: write {"usd_per_improvement"'),
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any], remedy: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_limits(**{"max_seconds": None, "max_usd": None, "stop_when": None, **wrong})
    assert remedy in str(refused.value)
