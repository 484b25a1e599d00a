from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.workloads.space import parse_space
from spillway.workloads.sweeping.proposals import Proposer
from spillway.workloads.sweeping.rows import Row, TrialStatus

SPACE = parse_space(
    {
        "rate": {"loguniform": [1e-4, 1]},
        "layers": {"randint": [1, 5]},
        "optimizer": {"choice": ["adam", "sgd", True, 1]},
        "momentum": {"quniform": [0, 0.9, 0.1], "when": {"optimizer": "sgd"}},
        "width": 64,
    }
)


def loss(parameters: dict[str, object]) -> float:
    return abs(math.log10(parameters["rate"]) + 2) + 0.1 * (parameters["optimizer"] != "sgd")


def searched(seed: int, trials: int, known: tuple[Row, ...] = ()) -> tuple[Row, ...]:
    """Run trials one after the other, those in `known` having been run by somebody else."""
    proposer = Proposer(SPACE, seed=seed, mode="min")
    proposer.take_over(known)
    rows = list(known)
    for trial in range(len(known), trials):
        parameters = proposer.propose(trial)
        value = loss(parameters)
        proposer.learn(trial, value)
        rows.append(Row(trial=trial, params=parameters, metric=value, status=TrialStatus.FINISHED))
    return tuple(rows)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 24))
def test_a_search_that_goes_on_elsewhere_proposes_what_it_would_have(seed: int, stop: int) -> None:
    whole = searched(seed, 24)
    assert searched(seed, 24, known=whole[:stop]) == whole


@given(st.integers(0, 2**31))
@settings(max_examples=8, deadline=None)
def test_proposals_are_in_the_space_and_keep_to_its_conditions(seed: int) -> None:
    for row in searched(seed, 14):
        assert 1e-4 <= row.params["rate"] <= 1
        assert 1 <= row.params["layers"] < 5
        assert row.params["width"] == 64
        assert ("momentum" in row.params) == (row.params["optimizer"] == "sgd")
        assert round(row.params.get("momentum", 0.0) * 10, 9).is_integer()


def test_it_learns() -> None:
    rows = searched(0, 60)
    late = sum(row.metric for row in rows[40:])
    assert late < 0.6 * sum(row.metric for row in rows[:20])


def test_trials_that_run_at_once_differ_and_failures_are_passed_over() -> None:
    rows = searched(3, 12)
    proposer = Proposer(SPACE, seed=3, mode="min")
    proposer.take_over(
        [
            *rows,
            Row(trial=12, params=rows[0].params),
            Row(trial=13, params=rows[1].params, error="x", status=TrialStatus.FAILED),
        ]
    )
    assert proposer.propose(14)["rate"] != proposer.propose(15)["rate"]
    proposer.learn(14, math.nan)
    proposer.learn(12, 0.5)
