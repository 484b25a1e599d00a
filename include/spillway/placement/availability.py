"""How spot capacity comes and goes: a semi-Markov model with hidden regimes, and beliefs about one pool.

A pool is available or not. How soon that flips depends on how long it has held (its age) and on a hidden regime: some
hours capacity flickers, some days it does not come back. As a continuous-time Markov chain the states are (available,
regime, age bucket), so that one matrix predicts, filters and prices.

Age moves to the next bucket at the rate of one over the bucket's length, which keeps the chain Markov and blurs ages
by about a bucket. Pools are taken to be independent of each other, which pools of one region are not.

Source: Howard, Dynamic Probabilistic Systems, vol. 2, 1971 (semi-Markov chains); Rabiner, A tutorial on hidden Markov
models, Proceedings of the IEEE, 1989 (filtering).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class AvailabilityModel:
    """Rates of a family of pools, learned elsewhere.

    Attributes:
        age_edges_hours: Where each age bucket begins; the first is 0, the last bucket has no end.
        losses_per_hour: For each regime, the rate at which available capacity goes, per age bucket.
        returns_per_hour: For each regime, the rate at which capacity comes back, per age bucket.
        switches_per_hour: Rate of each regime (row) turning into each other one (column); the diagonal is 0.
    """

    age_edges_hours: tuple[float, ...]
    losses_per_hour: tuple[tuple[float, ...], ...]
    returns_per_hour: tuple[tuple[float, ...], ...]
    switches_per_hour: tuple[tuple[float, ...], ...]

    def lossier(self, factor: float) -> AvailabilityModel:
        """Return the model with available capacity going `factor` times as often, and coming back as before."""
        return AvailabilityModel(
            age_edges_hours=self.age_edges_hours,
            losses_per_hour=_times(self.losses_per_hour, factor),
            returns_per_hour=self.returns_per_hour,
            switches_per_hour=self.switches_per_hour,
        )


class Chain:
    """An `AvailabilityModel` as matrices; the first half of the states is unavailable, the second available.

    Build one through `chain_of`, which remembers.

    Attributes:
        generator: Rates per hour, shape `(states, states)`.
        half: How many states are unavailable, and how many available.
    """

    def __init__(self, model: AvailabilityModel) -> None:
        self.half = len(model.switches_per_hour) * len(model.age_edges_hours)
        self.generator = _generator(model)
        self._steps: dict[float, Array] = {}
        self._doublings: list[Array] = []

    def step(self, hours: float) -> Array:
        """Return the transition matrix over `hours`."""
        key = round(hours, 9)
        known = self._steps.get(key)
        if known is None:
            if len(self._steps) >= _STEPS_KEPT:
                self._steps.clear()
            known = self._steps[key] = exponential(self.generator * key)
        return known

    @cached_property
    def stationary(self) -> Array:
        """Long-run share of time in each state, shape `(states,)`."""
        equations = np.vstack([self.generator.T, np.ones(2 * self.half)])
        solution = np.linalg.lstsq(equations, np.append(np.zeros(2 * self.half), 1.0))[0]
        shares = np.maximum(solution, 0.0)
        whole: Array = shares / shares.sum()
        return whole

    @cached_property
    def mean_stay_hours(self) -> Array:
        """Expected time until the next flip from each state, shape `(states,)`."""
        down, up = slice(self.half), slice(self.half, None)
        ones = np.ones(self.half)
        stays = [np.linalg.solve(-self.generator[part, part], ones) for part in (down, up)]
        return np.concatenate(stays).astype(np.float64)

    @cached_property
    def outlook(self) -> Array:
        """Long-run availability of a pool now in each state, a day from now, shape `(states,)`."""
        later: Array = exponential(self.generator * 24.0)[:, self.half :].sum(axis=1)
        return later

    def predict(self, belief: Array, hours: float) -> Array:
        """Return `belief` after `hours` in which the pool was not looked at.

        By whole quanta, in powers of two that are made once, and what is left by a series: a vector times a few matrices
        for any span of time, where `step` makes a matrix for each.
        """
        if hours <= 0:
            return belief
        quanta = math.floor(min(hours, _LONGEST_HOURS) / _QUANTUM_HOURS + 1e-9)
        later = self._series(belief, max(min(hours, _LONGEST_HOURS) - quanta * _QUANTUM_HOURS, 0.0))
        for power in range(quanta.bit_length()):
            if quanta >> power & 1:
                later = later @ self._doubling(power)
        whole: Array = later / later.sum()
        return whole

    def _series(self, belief: Array, hours: float) -> Array:
        """Return `belief` after less than a quantum, by a Taylor series on the vector."""
        if hours < _SAME_HOURS:
            return belief
        term = later = belief
        for order in range(1, 9):
            term = term @ self.generator * (hours / order)
            later = later + term
        return later

    def _doubling(self, power: int) -> Array:
        """Return the transition matrix over `2**power` quanta."""
        if not self._doublings:
            self._doublings.append(exponential(self.generator * _QUANTUM_HOURS))
        while len(self._doublings) <= power:
            # Rows are put back to 1, so that errors do not grow.
            doubled = self._doublings[-1] @ self._doublings[-1]
            self._doublings.append(doubled / doubled.sum(axis=1, keepdims=True))
        return self._doublings[power]

    def condition(self, belief: Array, *, available: bool) -> Array:
        """Return `belief` given that the pool is, or is not, available now."""
        seen = belief.copy()
        seen[: self.half] *= not available
        seen[self.half :] *= available
        total = float(seen.sum())
        if total < _IMPOSSIBLE:
            return self.condition(self.stationary, available=available)
        return seen / total


@lru_cache(maxsize=8)
def chain_of(model: AvailabilityModel) -> Chain:
    """Return the chain of `model`, the same one for equal models."""
    return Chain(model)


@lru_cache(maxsize=32)
def market_of(model: AvailabilityModel, pools: int) -> AvailabilityModel:
    """Return the model of a market: of whether any of `pools` alike pools has capacity.

    Pools lose and regain capacity partly together: n of them are taken to be worth the square root of n independent ones.
    The market is lost as many times less often, and while it is gone each of the others returns at its long-run rate.
    """
    if pools <= 1:
        return model
    apart = math.sqrt(pools)
    chain = chain_of(model)
    down = chain.stationary[: chain.half] / chain.stationary[: chain.half].sum()
    others = (apart - 1) * float(down @ np.array(model.returns_per_hour).ravel())
    return AvailabilityModel(
        age_edges_hours=model.age_edges_hours,
        losses_per_hour=_times(model.losses_per_hour, 1 / apart),
        returns_per_hour=tuple(
            tuple(rate + others for rate in row) for row in model.returns_per_hour
        ),
        switches_per_hour=model.switches_per_hour,
    )


def exponential(matrix: Array) -> Array:
    """Return the matrix exponential of a generator times a duration.

    Scaling and squaring with a Taylor series. Source: Moler and Van Loan, Nineteen dubious ways to compute the
    exponential of a matrix, 2003, method 3. Rows are put back to 1 after each squaring, so errors do not grow.
    """
    norm = float(np.abs(matrix).sum(axis=1).max())
    squarings = max(0, int(np.ceil(np.log2(norm / 0.25)))) if norm > 0 else 0
    scaled = matrix / 2**squarings
    term = result = np.eye(len(matrix))
    for order in range(1, 9):
        term = term @ scaled / order
        result = result + term
    for _ in range(squarings):
        result = result @ result
        result /= result.sum(axis=1, keepdims=True)
    return result


_STEPS_KEPT = 64
_QUANTUM_HOURS = 5 / 3600
_LONGEST_HOURS = 24.0 * 90  # a belief that old is that of the long run
_SAME_HOURS = 1e-9
_IMPOSSIBLE = 1e-12


def _generator(model: AvailabilityModel) -> Array:
    regimes, ages = len(model.switches_per_hour), len(model.age_edges_hours)
    shape = (2, regimes, ages)
    rates = np.zeros(shape * 2)
    ageing = 1.0 / np.diff(model.age_edges_hours)
    switches = np.array(model.switches_per_hour)
    for available, flips in enumerate((model.returns_per_hour, model.losses_per_hour)):
        for regime in range(regimes):
            for age in range(ages):
                here = rates[available, regime, age]
                here[1 - available, regime, 0] += flips[regime][age]
                if age + 1 < ages:
                    here[available, regime, age + 1] += ageing[age]
                here[available, :, age] += switches[regime]
    states = 2 * regimes * ages
    matrix = rates.reshape(states, states)
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def _times(rates: tuple[tuple[float, ...], ...], factor: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(rate * factor for rate in row) for row in rates)
