"""What the trials of a spread sweep have in common, as JSON says it and as it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydantic import JsonValue

from spillway.errors import SpecError
from spillway.workloads.space import parse_space
from spillway.workloads.sweeping.choices import Schedule, SearchBy, check_numbers, choose


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
    check_numbers(
        num_samples=search.num_samples,
        max_steps=search.max_steps,
        grace_steps=search.first_rung,
        reduction_factor=search.reduction_factor,
        seed=search.seed,
        mode=search.mode,
    )
    choose("search", search.search, SearchBy)
    if choose("scheduler", search.scheduler, Schedule) is Schedule.PBT:
        raise SpecError(
            "scheduler pbt moves checkpoints between trials, which have no machine in common here: "
            "give another scheduler, or the mode one_lease"
        )
