"""Which parameters to try next, from what the trials before reported: Optuna's tree-structured Parzen estimator.

A proposal depends on the seed, the trial's number and the table of trials alone, so a searcher is never saved: one that is
given the table of the attempt before goes on as that one would have.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, assert_never, cast

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from spillway.workloads.space import (
    Choice,
    Conditional,
    LogUniform,
    QuantizedUniform,
    RandomInteger,
    Uniform,
    applies,
    same,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from spillway.workloads.space import Domain
    from spillway.workloads.sweeping.rows import Row

Plain = Choice | LogUniform | QuantizedUniform | RandomInteger | Uniform


class Proposer:
    """Learns from ended trials and proposes the next."""

    def __init__(self, domains: Mapping[str, Domain], *, seed: int, mode: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._domains = domains
        self._seed = seed
        self._study = optuna.create_study(
            direction="minimize" if mode == "min" else "maximize", sampler=_sampler(seed, 0)
        )
        self._numbers: dict[int, int] = {}

    def take_over(self, rows: Iterable[Row]) -> None:
        """Learn what the attempt before had: its ended trials, and those that go on."""
        for row in sorted(rows, key=lambda row: row.trial):
            self._numbers[row.trial] = len(self._study.trials)
            self._study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params=_indices(self._domains, row.params),
                    distributions={
                        name: distribution(self._domains[name])
                        for name in sorted(row.params)
                        if name in self._domains
                    },
                )
            )
            if row.has_ended:
                self.learn(row.trial, None if row.error else row.metric)

    def propose(self, trial: int) -> dict[str, JsonValue]:
        """Return the parameters of a trial that begins now."""
        self._study.sampler = _sampler(self._seed, trial)
        asked = self._study.ask()
        self._numbers[trial] = asked.number
        parameters: dict[str, JsonValue] = {}
        for name in _by_condition(self._domains):
            if applies(self._domains, name, parameters):
                parameters[name] = _suggest(asked, name, self._domains[name])
        return parameters

    def learn(self, trial: int, value: float | None) -> None:
        """Take the last metric of a trial that ended; None for one that failed."""
        number = self._numbers[trial]
        if value is None or not np.isfinite(value):
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)


def distribution(domain: Domain) -> BaseDistribution:
    """Return the domain in Optuna's words; a choice, and a value in steps, by its position."""
    plain = _plain(domain)
    match plain:
        case Uniform(low=low, high=high):
            return FloatDistribution(low, high)
        case LogUniform(low=low, high=high):
            return FloatDistribution(low, high, log=True)
        case RandomInteger(low=low, high=high):
            return IntDistribution(low, high - 1)
        case QuantizedUniform():
            return IntDistribution(0, plain.count - 1)
        case Choice(values=values):
            return CategoricalDistribution(tuple(range(len(values))))
        case _ as never:
            assert_never(never)


def _suggest(asked: optuna.Trial, name: str, domain: Domain) -> JsonValue:
    plain = _plain(domain)
    match plain:
        case Uniform(low=low, high=high):
            return asked.suggest_float(name, low, high)
        case LogUniform(low=low, high=high):
            return asked.suggest_float(name, low, high, log=True)
        case RandomInteger(low=low, high=high):
            return asked.suggest_int(name, low, high - 1)
        case QuantizedUniform():
            return plain.value(asked.suggest_int(name, 0, plain.count - 1))
        case Choice(values=values):
            return values[asked.suggest_categorical(name, range(len(values)))]
        case _ as never:
            assert_never(never)


def _indices(
    domains: Mapping[str, Domain], parameters: Mapping[str, JsonValue]
) -> dict[str, object]:
    """Return the parameters as Optuna has them."""
    indices: dict[str, object] = {}
    for name in sorted(set(parameters) & set(domains)):
        value = parameters[name]
        match _plain(domains[name]):
            case Choice(values=values):
                indices[name] = next(i for i, each in enumerate(values) if same(each, value))
            case QuantizedUniform(low=low, step=step):
                indices[name] = round((cast("float", value) - low) / step)
            case _:
                indices[name] = value
    return indices


def _plain(domain: Domain) -> Plain:
    return cast("Plain", domain.domain if isinstance(domain, Conditional) else domain)


def _by_condition(domains: Mapping[str, Domain]) -> list[str]:
    """Return the names so that each comes after those its condition names."""
    ordered: list[str] = []

    def add(name: str) -> None:
        domain = domains[name]
        if isinstance(domain, Conditional):
            for other in sorted(domain.when):
                add(other)
        if name not in ordered:
            ordered.append(name)

    for name in sorted(domains):
        add(name)
    return ordered


def _sampler(seed: int, trial: int) -> optuna.samplers.BaseSampler:
    mixed = int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Trials that run count as bad, so that two that run at once differ.
        return optuna.samplers.TPESampler(seed=mixed, constant_liar=True)
