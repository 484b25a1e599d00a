"""What decides the weights that a training ends with, apart from the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from spillway.errors import SpecError
from spillway.model import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEAST = {
    "steps": 1,
    "batch": 1,
    "accumulation": 1,
    "width": 1,
    "layers": 1,
    "heads": 1,
    "context": 1,
    "warmup": 0,
    "seed": 0,
}
_LAST_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The numbers of one training.

    Attributes:
        steps: Optimizer steps in all; the learning rate falls until the last.
        learning_rate: The highest, reached after `warmup` steps.
        batch: Sequences a step.
        context: Tokens of a sequence that are predicted.
        width: Size of the vector that stands for one token; a multiple of `heads`.
        dropout: Share of each block's output set to zero while training.
        accumulation: Parts a batch is computed in, one after the other; memory is needed for one of them.
        precision: Of matrix products; weights and sums of them stay float32.
    """

    steps: int
    learning_rate: float = 4e-3
    warmup: int = 20
    batch: int = 16
    seed: int = 0
    width: int = 96
    layers: int = 3
    heads: int = 4
    context: int = 64
    dropout: float = 0.0
    accumulation: int = 1
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse numbers that no training can have."""
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise SpecError(f"{name} is {getattr(self, name)}: give {least} or more")
        if self.batch % self.accumulation:
            raise SpecError(
                f"batch is {self.batch} and accumulation {self.accumulation}: give a batch that it divides"
            )
        if not 0 < self.learning_rate < math.inf:
            raise SpecError(f"learning_rate is {self.learning_rate}: give a number above 0")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"dropout is {self.dropout}: give at least 0 and less than 1")
        if self.width % self.heads:
            raise SpecError(
                f"width {self.width} cannot be split over {self.heads} heads: "
                f"give a multiple of {self.heads}, or other heads"
            )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0: it rises in a line, then falls along a cosine to a tenth.

        Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017.
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        share = _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * share


def make_recipe(values: Mapping[str, object]) -> Recipe:
    """Return the recipe with these numbers, and the usual ones for the rest.

    Raises:
        SpecError: A name is unknown, or a number cannot be.
    """
    known = [field.name for field in fields(Recipe)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SpecError(f"{', '.join(unknown)} is unknown: give some of {', '.join(known)}")
    return codec.decode(dict(values), Recipe)
