"""The shipped pipeline's entry points: the workloads with the numbers of a named size filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from spillway.workloads.sizes import size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from spillway.runtime import Session


SPACE: Final[dict[str, JsonValue]] = {
    "learning_rate": {"loguniform": [1e-3, 1e-2]},
    "width": {"choice": [64, 96]},
}
"""What the shipped sweep searches, unless told otherwise."""


def plan(
    session: Session, *, output: str, size: str, seed: int, engine: str = "embedded"
) -> JsonValue:
    """Choose the corpus of `size`; return the arguments of `preprocess.encode` for each shard."""
    from spillway.workloads import preprocess

    chosen = size_of(size)
    shards = preprocess.plan(
        session, output=output, size=chosen.text, shards=chosen.shards, seed=seed
    )
    assert isinstance(shards, list)
    return [{"shard": shard, "engine": engine} for shard in shards]


def sweep(
    session: Session,
    *,
    dataset: str,
    size: str,
    seed: int,
    output: str | None = None,
    options: Mapping[str, JsonValue] | None = None,
    limits: Mapping[str, JsonValue] | None = None,
) -> JsonValue:
    """Search for good parameters with as many trials as `size` says; return the best and the table of trials.

    `options` and `limits` are arguments of `sweep.sweep`, to take the place of the usual ones; those that are None are not
    given.
    """
    from spillway.workloads import sweep as workload

    search = _search(dataset=dataset, size=size, seed=seed, options=options)
    return workload.sweep(session, output=output, **search, **_given(limits))


def trials(
    *,
    dataset: str,
    size: str,
    seed: int,
    options: Mapping[str, JsonValue] | None = None,
    limits: Mapping[str, JsonValue] | None = None,
) -> list[dict[str, JsonValue]]:
    """Return the arguments of `trial`, for each trial of the same search."""
    from spillway.workloads import spread

    common: dict[str, JsonValue] = {
        "dataset": dataset,
        "size": size,
        "seed": seed,
        "options": _given(options),
        "limits": _given(limits),
    }
    search = _search(dataset=dataset, size=size, seed=seed, options=options)
    planned = spread.plan(**search, **_given(limits))
    return [{"trial": each["trial"], **common} for each in planned]


def trial(
    session: Session,
    *,
    output: str,
    trial: int,
    dataset: str,
    size: str,
    seed: int,
    options: Mapping[str, JsonValue] | None = None,
    limits: Mapping[str, JsonValue] | None = None,
) -> JsonValue:
    """Run one trial of the same search, with the study of all in `output`; return its row."""
    from spillway.workloads import spread

    search = _search(dataset=dataset, size=size, seed=seed, options=options)
    return spread.trial(session, output=output, trial=trial, **search, **_given(limits))


def _search(
    *, dataset: str, size: str, seed: int, options: Mapping[str, JsonValue] | None
) -> dict[str, Any]:
    chosen = size_of(size)
    return {
        "dataset": dataset,
        "space": SPACE,
        "num_samples": chosen.trials,
        "max_steps": chosen.trial_steps,
        "seed": seed,
        **_given(options),
    }


def _given(options: Mapping[str, JsonValue] | None) -> dict[str, Any]:
    return {name: value for name, value in (options or {}).items() if value is not None}


def train(
    session: Session, *, dataset: str, best: Mapping[str, JsonValue], size: str, seed: int
) -> JsonValue:
    """Train with `best`, a set of parameters or the sweep's best trial, for as many steps as `size` says."""
    from spillway.workloads import train as workload

    parameters = best.get("params", best)
    assert isinstance(parameters, dict)
    return workload.train(
        session, dataset=dataset, steps=size_of(size).train_steps, seed=seed, **parameters
    )
