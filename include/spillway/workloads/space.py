"""A search space written as JSON, and the parameters of each trial drawn from it.

    {"learning_rate": {"loguniform": [0.001, 0.01]}, "width": {"choice": [64, 96]}, "layers": 3,
     "optimizer": {"choice": ["adam", "sgd"]},
     "momentum": {"quniform": [0, 0.9, 0.1], "when": {"optimizer": "sgd"}}}

A parameter with a condition is left out of a trial where the condition does not hold. Trial 7 of seed 1 always has the same parameters, however many trials there are and whichever ran before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from pydantic import JsonValue

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable


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
class QuantizedUniform:
    """The numbers `low`, `low + step` and so on up to `high`, each as likely."""

    low: float
    high: float
    step: float

    @property
    def count(self) -> int:
        """How many there are."""
        # 0.9 is the ninth tenth, though 0.9 / 0.1 is a bit less than 9.
        return math.floor((self.high - self.low) / self.step * (1 + 1e-12)) + 1

    def value(self, index: int) -> float:
        """Return the one that `index` others are below."""
        return min(self.low + index * self.step, self.high)

    def draw(self, generator: np.random.Generator) -> JsonValue:
        """Return one of them."""
        return self.value(int(generator.integers(self.count)))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """A domain of a parameter that only some trials have.

    Attributes:
        when: Values of other parameters with which a trial has it; all of these have to hold.
    """

    domain: Domain
    when: Mapping[str, tuple[JsonValue, ...]]

    def draw(self, generator: np.random.Generator) -> JsonValue:
        """Return one value of the domain, whether the condition holds or not."""
        return self.domain.draw(generator)


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
    problems += [
        f"{name}: {problem}"
        for name, domain in domains.items()
        if isinstance(domain, Conditional)
        for problem in _condition_problems(name, domain, written=space, domains=domains)
    ]
    if problems:
        raise SpecError("the search space has mistakes: " + "; ".join(problems))
    return domains


def draw(domains: Mapping[str, Domain], *, seed: int, trial: int) -> dict[str, JsonValue]:
    """Return the parameters of one trial; depends on nothing but the arguments."""
    generator = np.random.Generator(np.random.Philox(key=[seed, trial]))
    drawn = {name: domains[name].draw(generator) for name in sorted(domains)}
    return {name: value for name, value in drawn.items() if applies(domains, name, drawn)}


def applies(domains: Mapping[str, Domain], name: str, parameters: Mapping[str, JsonValue]) -> bool:
    """Return whether a trial with these parameters has the one called `name` as well."""
    domain = domains[name]
    return not isinstance(domain, Conditional) or all(
        other in parameters
        and any(same(parameters[other], value) for value in values)
        and applies(domains, other, parameters)
        for other, values in domain.when.items()
    )


def same(one: JsonValue, other: JsonValue) -> bool:
    """Return whether two values are the same JSON: `true` is not `1`."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _parse(written: JsonValue) -> Domain:
    if isinstance(written, dict) and "when" in written:
        rest = {name: content for name, content in written.items() if name != "when"}
        return Conditional(domain=_parse(rest), when=_when(written["when"]))
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


def _when(content: JsonValue) -> dict[str, tuple[JsonValue, ...]]:
    if not isinstance(content, dict) or not content:
        raise SpecError(
            f'when has {content}: give another parameter and its value, such as {{"optimizer": "sgd"}}'
        )
    return {
        name: tuple(values) if isinstance(values, list) else (values,)
        for name, values in content.items()
    }


def _condition_problems(
    name: str,
    domain: Conditional,
    *,
    written: Mapping[str, JsonValue],
    domains: Mapping[str, Domain],
) -> list[str]:
    problems = [
        f"when names {other}, which the space has not: give one of {', '.join(written)}"
        for other in domain.when
        if other not in written
    ]
    if _depends_on(name, name, domains, seen=frozenset()):
        problems.append("it depends on itself: let one of the conditions go")
    for other, values in domain.when.items():
        decides = domains.get(other)
        inner = decides.domain if isinstance(decides, Conditional) else decides
        if isinstance(inner, Choice):
            problems += [
                f"when wants {other} {value}, which it never is: give some of {list(inner.values)}"
                for value in values
                if not any(same(value, each) for each in inner.values)
            ]
    return problems


def _depends_on(
    name: str, sought: str, domains: Mapping[str, Domain], *, seen: frozenset[str]
) -> bool:
    domain = domains.get(name)
    if name in seen or not isinstance(domain, Conditional):
        return False
    return sought in domain.when or any(
        _depends_on(other, sought, domains, seen=seen | {name}) for other in domain.when
    )


def _choice(content: JsonValue) -> Domain:
    if not isinstance(content, list) or not content:
        raise SpecError(f"choice has {content}: give a list of at least one value")
    return Choice(values=tuple(content))


def _uniform(content: JsonValue) -> Domain:
    low, high = _bounds("uniform", content)
    return Uniform(low=low, high=high)


def _quniform(content: JsonValue) -> Domain:
    if not isinstance(content, list) or len(content) != 3:
        raise SpecError(f"quniform has {content}: give [low, high, step]")
    low, high = _bounds("quniform", content[:2])
    step = content[2]
    if not isinstance(step, int | float) or isinstance(step, bool) or not 0 < step <= high - low:
        raise SpecError(f"quniform has the step {step}: give one above 0 and up to {high - low}")
    return QuantizedUniform(low=low, high=high, step=float(step))


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
    "quniform": _quniform,
    "choice": _choice,
    "randint": _randint,
}
