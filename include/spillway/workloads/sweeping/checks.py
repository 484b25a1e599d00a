"""Refuse what Ray would only complain about later, or wait for for ever."""

from __future__ import annotations

import ast
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.errors import SpecError
from spillway.workloads.space import Conditional
from spillway.workloads.sweeping.choices import Schedule, SearchBy, check_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.model import Submission
    from spillway.workloads.search import Search
    from spillway.workloads.space import Domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What each machine of a lease has for trials."""

    nodes: int
    cpus: int
    accelerators: int

    @classmethod
    def of(cls, submission: Submission, *, cpus: int | None) -> Room:
        """Return what the lease has, with `cpus` on each machine, or as many as were asked for if None."""
        asked_for = max(int(submission.resources.cpus), 1)
        return cls(
            nodes=submission.nodes,
            cpus=cpus or asked_for,
            accelerators=submission.resources.accelerator_count,
        )

    def share(self, search: Search) -> float:
        """Return which part of the lease a trial takes: that of what it takes most of."""
        of_accelerators = (
            search.accelerators_per_trial / self.accelerators if self.accelerators else 0.0
        )
        return max(search.cpus_per_trial / self.cpus, of_accelerators) / self.nodes

    def check(self, search: Search, *, num_samples: int, domains: Mapping[str, Domain]) -> None:
        """Refuse a search that cannot be run here.

        Raises:
            SpecError: Names the argument and the remedy.
        """
        check_numbers(
            num_samples=num_samples,
            max_steps=search.max_steps,
            grace_steps=search.grace_steps,
            reduction_factor=search.reduction_factor,
            seed=search.seed,
            mode=search.mode,
        )
        if search.accelerators_per_trial < 0:
            raise SpecError(
                f"accelerators_per_trial is {search.accelerators_per_trial}: give 0 or more"
            )
        if search.cpus_per_trial <= 0:
            raise SpecError(f"cpus_per_trial is {search.cpus_per_trial}: give more than 0")
        for name, wanted, there in (
            ("cpus_per_trial", search.cpus_per_trial, self.cpus),
            ("accelerators_per_trial", search.accelerators_per_trial, self.accelerators),
        ):
            if wanted > there:
                what = name.split("_")[0].replace("cpus", "CPUs")
                machine = "the lease" if self.nodes == 1 else "each machine of the lease"
                raise SpecError(
                    f"a trial wants {wanted} {what} and {machine} has {there}: give {name} up to {there}, "
                    "or ask for a larger lease"
                )
        if search.scheduler is Schedule.PBT:
            _check_population(search, domains)


def look_up(trainable: str) -> bool:
    """Return whether `package.module:name` is a class; found in its source, as importing it may take seconds.

    Raises:
        SpecError: There is no such module, or the name is nowhere in it.
    """
    module, _, name = trainable.partition(":")
    found = _find(module) if module and name.isidentifier() else None
    if found is None:
        raise SpecError(
            f"trainable {trainable!r} is not there: give package.module:function of something installed"
        )
    source = Path(found)
    if source.suffix != ".py":
        return False
    text = source.read_text(encoding="utf-8")
    if name not in text and "__getattr__" not in text and "import *" not in text:
        raise SpecError(
            f"trainable {trainable!r} is not there: module {module} has no {name}; correct the name after the colon"
        )
    return any(
        isinstance(each, ast.ClassDef) and each.name == name for each in ast.parse(text).body
    )


def _find(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    return None if spec is None else spec.origin or os.devnull


def _check_population(search: Search, domains: Mapping[str, Domain]) -> None:
    if search.search is not SearchBy.RANDOM:
        raise SpecError("scheduler pbt changes parameters itself: give search random")
    conditional = [name for name, domain in domains.items() if isinstance(domain, Conditional)]
    if conditional:
        raise SpecError(
            f"scheduler pbt cannot change parameters with a condition ({', '.join(conditional)}): give another scheduler"
        )
