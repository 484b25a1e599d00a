"""What the trials of a spread sweep have in common, as JSON says it and as it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from pydantic import JsonValue

from spillway.errors import SpecError
from spillway.workloads.space import parse_space


class SearchBy(StrEnum):
    """Where the parameters of a trial come from."""

    RANDOM = "random"
    """Drawn from the seed and the trial's number: the same in any order, on any number of pools, and in one lease."""
    OPTUNA = "optuna"
    """Proposed from what the trials before reported; depends on which was quicker."""


class Schedule(StrEnum):
    """Who stops a trial early; each compares with the trials on all pools."""

    ASHA = "asha"
    MEDIAN = "median"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadSearch:
    """One search; the names are those of `sweep.sweep`.

    Attributes:
        dataset: Folder of the dataset, handed on to each trial.
        grace_steps: Steps before which none is stopped; a quarter of `max_steps` unless given.
        reduction_factor: One in so many trials goes on at each rung of ASHA.
        trainable: `package.module:function`, called as `sweeping.trial.run_function` says.
    """

    dataset: str
    space: Mapping[str, JsonValue]
    num_samples: int
    max_steps: int
    grace_steps: int | None = None
    metric: str = "validation_loss"
    mode: str = "min"
    reduction_factor: int = 2
    seed: int = 0
    trainable: str = "spillway.workloads.train:trial"
    search: str = SearchBy.RANDOM
    scheduler: str = Schedule.ASHA

    @property
    def first_rung(self) -> int:
        """Steps before which no trial is stopped."""
        return self.grace_steps or max(1, self.max_steps // 4)


def make_search(written: Mapping[str, Any]) -> SpreadSearch:
    """Return the search that `written` describes.

    Raises:
        SpecError: A name is unknown or missing, a value cannot be, or the space has mistakes; says the remedy.
    """
    known = {field.name for field in fields(SpreadSearch)}
    if unknown := sorted(set(written) - known):
        raise SpecError(
            f"a spread sweep has no {', '.join(unknown)}: it takes {', '.join(sorted(known))}"
        )
    try:
        search = SpreadSearch(**written)
    except TypeError as error:
        raise SpecError(f"the arguments of the sweep are not whole: {error}") from error
    _check(search)
    parse_space(search.space)
    return search


def _check(search: SpreadSearch) -> None:
    for name, number, least in (
        ("num_samples", search.num_samples, 1),
        ("max_steps", search.max_steps, 1),
        ("grace_steps", search.first_rung, 1),
        ("reduction_factor", search.reduction_factor, 2),
        ("seed", search.seed, 0),
    ):
        if number < least:
            raise SpecError(f"{name} is {number}: give {least} or more")
    if search.first_rung > search.max_steps:
        raise SpecError(
            f"grace_steps {search.grace_steps} is over max_steps: give {search.max_steps} or less"
        )
    for name, value, allowed in (
        ("mode", search.mode, ("min", "max")),
        ("search", search.search, tuple(SearchBy)),
        ("scheduler", search.scheduler, tuple(Schedule)),
    ):
        if value not in allowed:
            raise SpecError(f"{name} is {value!r}: give {' or '.join(allowed)}")
