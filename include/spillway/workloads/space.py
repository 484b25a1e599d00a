"""A search space written as JSON, and the parameters of each trial drawn from it.

    {"learning_rate": {"loguniform": [0.001, 0.01]}, "width": {"choice": [64, 96]}, "layers": 3}

Trial 7 of seed 1 always has the same parameters, however many trials there are and whichever ran before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from pydantic import JsonValue

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Domain(Protocol):
    """The values one parameter may take."""

    def draw(self, generator: np.random.Generator) -> JsonValue:
        """Return one of them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Real numbers of `[low, high)`, each as likely."""

    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> JsonValue:
        """Return one of them."""
        return float(generator.uniform(self.low, self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogUniform:
    """Real numbers of `[low, high]`, each order of magnitude as likely."""

    low: float
    high: float

    def draw(self, generator: np.random.Generator) -> JsonValue:
        """Return one of them."""
        value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return min(max(value, self.low), self.high)  # exp(log(x)) may miss x by a bit


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomInteger:
    """Whole numbers of `[low, high)`, each as likely."""

    low: int
    high: int

    def draw(self, generator: np.random.Generator) -> JsonValue:
        """Return one of them."""
        return int(generator.integers(self.low, self.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The values listed, each as likely."""

    values: tuple[JsonValue, ...]

    def draw(self, generator: np.random.Generator) -> JsonValue:
        """Return one of them."""
        return self.values[int(generator.integers(len(self.values)))]


def parse_space(space: Mapping[str, JsonValue]) -> dict[str, Domain]:
    """Return the domain of each parameter; a plain value stands for itself.

    Raises:
        SpecError: Lists every mistake, with the parameter's name and the remedy.
    """
    if not space:
        raise SpecError(
            'the space is empty: give it a parameter, such as {"width": {"choice": [64, 96]}}'
        )
    domains: dict[str, Domain] = {}
    problems: list[str] = []
    for name, written in space.items():
        try:
            domains[name] = _parse(written)
        except SpecError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise SpecError("the search space has mistakes: " + "; ".join(problems))
    return domains


def draw(domains: Mapping[str, Domain], *, seed: int, trial: int) -> dict[str, JsonValue]:
    """Return the parameters of one trial; depends on nothing but the arguments."""
    generator = np.random.Generator(np.random.Philox(key=[seed, trial]))
    return {name: domains[name].draw(generator) for name in sorted(domains)}


def _parse(written: JsonValue) -> Domain:
    if isinstance(written, list):
        raise SpecError(f'{written} is a list: write {{"choice": {written}}}')
    if not isinstance(written, dict):
        return Choice(values=(written,))
    if len(written) != 1 or not set(written) <= set(_KINDS):
        raise SpecError(
            f'{written} names no distribution: write {{"name": ...}} with one of {", ".join(_KINDS)}'
        )
    ((kind, content),) = written.items()
    return _KINDS[kind](content)


def _choice(content: JsonValue) -> Domain:
    if not isinstance(content, list) or not content:
        raise SpecError(f"choice has {content}: give a list of at least one value")
    return Choice(values=tuple(content))


def _uniform(content: JsonValue) -> Domain:
    low, high = _bounds("uniform", content)
    return Uniform(low=low, high=high)


def _loguniform(content: JsonValue) -> Domain:
    low, high = _bounds("loguniform", content)
    if low <= 0:
        raise SpecError(f"loguniform starts at {low}: give a start above 0, or take uniform")
    return LogUniform(low=low, high=high)


def _randint(content: JsonValue) -> Domain:
    low, high = _bounds("randint", content)
    if not (low.is_integer() and high.is_integer()):
        raise SpecError(f"randint has {content}: give whole numbers, or take uniform")
    return RandomInteger(low=int(low), high=int(high))


def _bounds(kind: str, content: JsonValue) -> tuple[float, float]:
    """Return the two ends of a range, the first the smaller."""
    if not isinstance(content, list) or len(content) != 2:
        raise SpecError(f"{kind} has {content}: give [low, high]")
    ends = [
        each for each in content if isinstance(each, int | float) and not isinstance(each, bool)
    ]
    if len(ends) != 2 or not all(math.isfinite(each) and abs(each) < 2**53 for each in ends):
        raise SpecError(f"{kind} has {content}: give two finite numbers")
    low, high = map(float, ends)
    if low >= high:
        raise SpecError(f"{kind} goes from {low} to {high}: give the smaller number first")
    return low, high


_KINDS: Mapping[str, Callable[[JsonValue], Domain]] = {
    "loguniform": _loguniform,
    "uniform": _uniform,
    "choice": _choice,
    "randint": _randint,
}
