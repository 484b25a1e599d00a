from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import SpecError
from spillway.workloads.space import draw, parse_space

numbers = st.floats(-1e6, 1e6, allow_nan=False)
ranges = st.tuples(numbers, numbers).filter(lambda ends: ends[0] < ends[1]).map(list)
positive = (
    st.tuples(st.floats(1e-9, 1e6), st.floats(1e-9, 1e6))
    .map(sorted)
    .filter(lambda ends: ends[0] < ends[1])
)
whole = st.tuples(st.integers(-100, 100), st.integers(1, 100)).map(
    lambda ends: [ends[0], sum(ends)]
)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=5)
domains = (
    st.builds(lambda ends: {"uniform": ends}, ranges)
    | st.builds(lambda ends: {"loguniform": ends}, positive)
    | st.builds(lambda ends: {"randint": ends}, whole)
    | st.builds(lambda values: {"choice": values}, st.lists(scalars, min_size=1, max_size=4))
    | scalars
)
spaces = st.dictionaries(st.text(min_size=1, max_size=5), domains, min_size=1, max_size=4)


def is_in(value: object, written: object) -> bool:
    match written:
        case {"uniform": [low, high]} | {"loguniform": [low, high]}:
            return isinstance(value, float) and low <= value <= high
        case {"randint": [low, high]}:
            return isinstance(value, int) and low <= value < high
        case {"choice": values}:
            return value in values
        case constant:
            return value == constant


@given(spaces, st.integers(0, 2**32), st.integers(0, 1000))
def test_what_is_drawn_is_in_the_space_and_is_json(
    space: dict[str, object], seed: int, trial: int
) -> None:
    parameters = draw(parse_space(space), seed=seed, trial=trial)
    assert parameters.keys() == space.keys()
    assert all(is_in(parameters[name], written) for name, written in space.items())
    assert json.loads(json.dumps(parameters)) == parameters


@given(spaces, st.integers(0, 2**32), st.integers(0, 1000))
def test_a_trial_is_the_same_however_the_space_is_ordered(
    space: dict[str, object], seed: int, trial: int
) -> None:
    backwards = dict(reversed(space.items()))
    assert draw(parse_space(space), seed=seed, trial=trial) == draw(
        parse_space(backwards), seed=seed, trial=trial
    )


def test_trials_and_seeds_differ() -> None:
    space = parse_space({"x": {"uniform": [0, 1]}})
    drawn = [draw(space, seed=seed, trial=trial)["x"] for seed in range(3) for trial in range(20)]
    assert len(set(drawn)) == 60


def test_a_log_range_gives_each_magnitude_its_share() -> None:
    space = parse_space({"x": {"loguniform": [1e-4, 1]}})
    logs = [math.log10(draw(space, seed=0, trial=trial)["x"]) for trial in range(400)]
    counts = [sum(low <= log < low + 1 for log in logs) for low in range(-4, 0)]
    assert all(70 <= count <= 130 for count in counts)


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ([1, 2], 'write {"choice": [1, 2]}'),
        ({}, "names no distribution"),
        ({"normal": [0, 1]}, "loguniform, uniform, quniform, choice, randint"),
        ({"uniform": [0, 1], "choice": [1]}, "names no distribution"),
        ({"choice": []}, "at least one value"),
        ({"choice": 3}, "at least one value"),
        ({"uniform": [1]}, "give [low, high]"),
        ({"uniform": ["a", 2]}, "two finite numbers"),
        ({"uniform": [0, math.inf]}, "two finite numbers"),
        ({"uniform": [True, 2]}, "two finite numbers"),
        ({"uniform": [2, 1]}, "the smaller number first"),
        ({"loguniform": [0, 1]}, "above 0, or take uniform"),
        ({"randint": [0, 1.5]}, "whole numbers"),
        ({"randint": [3, 3]}, "the smaller number first"),
        ({"quniform": [0, 1]}, "give [low, high, step]"),
        ({"quniform": [0, 1, 0]}, "above 0 and up to 1"),
        ({"quniform": [0, 1, 2]}, "above 0 and up to 1"),
        ({"choice": [1], "when": "sgd"}, "give another parameter and its value"),
        ({"when": {"good": 1}}, "names no distribution"),
        ({"choice": [1], "when": {"nowhere": 1}}, "give one of good, width"),
        ({"choice": [1], "when": {"width": 1}}, "depends on itself"),
        ({"choice": [1], "when": {"good": True}}, "which it never is: give some of [1]"),
    ],
)
def test_a_mistake_is_refused_with_its_parameter_and_its_remedy(
    written: object, remedy: str
) -> None:
    with pytest.raises(SpecError) as refused:
        parse_space({"good": 1, "width": written})
    assert "width: " in str(refused.value)
    assert remedy in str(refused.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SpecError, match=r"a: .*; b: "):
        parse_space({"a": {"choice": []}, "b": [1]})


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(SpecError, match="give it a parameter"):
        parse_space({})


def test_a_quantized_range_has_each_of_its_values_and_no_other() -> None:
    space = parse_space({"x": {"quniform": [0, 0.9, 0.1]}})
    drawn = {round(draw(space, seed=0, trial=trial)["x"], 9) for trial in range(300)}
    assert drawn == {round(tenth / 10, 9) for tenth in range(10)}


def test_a_parameter_is_there_only_where_its_condition_holds() -> None:
    space = parse_space(
        {
            "optimizer": {"choice": ["adam", "sgd"]},
            "momentum": {"uniform": [0, 1], "when": {"optimizer": "sgd"}},
            "nesterov": {"choice": [True, False], "when": {"momentum": [0.5], "optimizer": "sgd"}},
            "rate": {"uniform": [0, 1]},
        }
    )
    plain = parse_space({"optimizer": {"choice": ["adam", "sgd"]}})
    for trial in range(30):
        parameters = draw(space, seed=0, trial=trial)
        assert ("momentum" in parameters) == (parameters["optimizer"] == "sgd")
        assert "nesterov" not in parameters
        assert "rate" in parameters
    assert {draw(plain, seed=0, trial=trial)["optimizer"] for trial in range(9)} == {"adam", "sgd"}


def test_conditions_that_wait_for_each_other_are_refused() -> None:
    with pytest.raises(SpecError, match="a: it depends on itself"):
        parse_space(
            {
                "a": {"choice": [1], "when": {"b": 1}},
                "b": {"choice": [1], "when": {"a": 1}},
            }
        )
