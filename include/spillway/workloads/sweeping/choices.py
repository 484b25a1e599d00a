"""What a sweep may be asked for, in one lease or spread over pools, and what of it cannot be."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from spillway.errors import SpecError

_Name = TypeVar("_Name", bound=StrEnum)


class SearchBy(StrEnum):
    """Where the parameters of a trial come from."""

    RANDOM = "random"
    """Drawn from the seed and the trial's number: the same in any order, on any number of pools, and in one lease."""
    OPTUNA = "optuna"
    """Proposed from what the trials before reported; depends on which was quicker."""


class Schedule(StrEnum):
    """What happens to trials while they run."""

    ASHA = "asha"
    """Those that are worse than others at the same step are stopped early.
    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020."""
    MEDIAN = "median"
    """Those that are worse than the median of the others are.
    Source: Golovin et al., Google Vizier: A Service for Black-Box Optimization, 2017."""
    PBT = "pbt"
    """Bad ones go on from a good one's checkpoint with its parameters, changed a bit; in one lease only.
    Source: Jaderberg et al., Population Based Training of Neural Networks, 2017."""
    NONE = "none"


LEAST_TRIALS_FOR_A_MEDIAN = 4
"""Before so many have reported none is stopped for being worse than the median."""


def choose(name: str, value: str, kind: type[_Name]) -> _Name:
    """Return the one of `kind` called `value`, of the argument `name`.

    Raises:
        SpecError: There is none; names those there are.
    """
    try:
        return kind(value)
    except ValueError:
        raise SpecError(f"{name} is {value!r}: give one of {', '.join(kind)}") from None


def check_numbers(
    *,
    num_samples: int,
    max_steps: int,
    grace_steps: int,
    reduction_factor: int,
    seed: int,
    mode: str,
) -> None:
    """Refuse numbers that no sweep can be run with.

    Raises:
        SpecError: Names the argument and the remedy.
    """
    for name, number, least in (
        ("num_samples", num_samples, 1),
        ("max_steps", max_steps, 1),
        ("grace_steps", grace_steps, 1),
        ("reduction_factor", reduction_factor, 2),
        ("seed", seed, 0),
    ):
        if number < least:
            raise SpecError(f"{name} is {number}: give {least} or more")
    if mode not in ("min", "max"):
        raise SpecError(f"mode is {mode!r}: give min or max")
    if grace_steps > max_steps:
        raise SpecError(f"grace_steps {grace_steps} is over max_steps: give {max_steps} or less")
