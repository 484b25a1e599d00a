"""The shipped pipeline's entry points: the workloads with the numbers of a named size filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spillway.workloads.sizes import size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from spillway.runtime import Session


def plan(session: Session, *, output: str, size: str, seed: int) -> JsonValue:
    """Choose the corpus of `size`; return the shards to encode."""
    from spillway.workloads import preprocess

    chosen = size_of(size)
    return preprocess.plan(
        session, output=output, size=chosen.text, shards=chosen.shards, seed=seed
    )


def sweep(session: Session, *, dataset: str, size: str, seed: int) -> JsonValue:
    """Search learning rate and width with as many trials as `size` says; return the best and the table of trials."""
    from spillway.workloads import sweep as workload

    return workload.sweep(session, **_search(dataset=dataset, size=size, seed=seed))


def trials(*, dataset: str, size: str, seed: int) -> list[dict[str, JsonValue]]:
    """Return the arguments of `trial`, for each trial of the same search."""
    from spillway.workloads import spread

    planned = spread.plan(**_search(dataset=dataset, size=size, seed=seed))
    return [
        {"trial": each["trial"], "dataset": dataset, "size": size, "seed": seed} for each in planned
    ]


def trial(
    session: Session, *, output: str, trial: int, dataset: str, size: str, seed: int
) -> JsonValue:
    """Run one trial of the same search, with the study of all in `output`; return its row."""
    from spillway.workloads import spread

    search = _search(dataset=dataset, size=size, seed=seed)
    return spread.trial(session, output=output, trial=trial, **search)


def _search(*, dataset: str, size: str, seed: int) -> dict[str, Any]:
    chosen = size_of(size)
    return {
        "dataset": dataset,
        "space": {
            "learning_rate": {"loguniform": [1e-3, 1e-2]},
            "width": {"choice": [64, 96]},
        },
        "num_samples": chosen.trials,
        "max_steps": chosen.trial_steps,
        "seed": seed,
    }


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
