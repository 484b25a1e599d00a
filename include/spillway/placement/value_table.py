"""Expected cost to complete a job by its deadline, from every state: the table that the policy reads.

Exact dynamic programming, backwards over steps of `step_hours`, under an availability model. A state is the work left, the
slack (time left beside the work), what is running, how much of its restart is still to be served, and the state of
the pool that is followed. Costs are in units of one hour of steady capacity.

What comes and goes is the market: whether any of the job's spot pools has capacity. One pool may also lose it while the
market goes on; a table holds one layer of `spot` costs for each of a few rates of that (evictions), and takes the
pool found after an eviction, or at any launch to come, to be evicted at `base_evictions_per_hour`. With one spot pool, the pool
is the market. Moving off steady capacity in the middle of its restart gets none of that restart back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spillway.placement.availability import Array, AvailabilityModel, Chain, chain_of, market_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Values = npt.NDArray[np.float32]

ALONE = (0.0,)
# A good pool among several is taken back about twice a day; the first rate is that of pools taken later.
AMONG_OTHERS = (0.1, 0.0, 0.3, 1.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """What a value table is made for; equal specs have equal tables.

    Attributes:
        look_hours: Time between two looks at the pools.
        looks_per_step: Looks in one step of the dynamic programme.
        work_hours: Most work the table reaches to.
        slack_hours: Most slack the table tells apart.
        restart_hours: Restart overhead.
        spot_price: Price of spot capacity, in units of that of steady capacity.
        pools: How many spot pools make up the market.
        evictions_per_hour: Rates of losing one pool while another has room; the first is that of pools taken later.
    """

    look_hours: float
    looks_per_step: int
    work_hours: float
    slack_hours: float
    restart_hours: float
    spot_price: float
    pools: int = 1
    evictions_per_hour: tuple[float, ...] = ALONE

    @property
    def step_hours(self) -> float:
        """Time between two decisions of the dynamic programme."""
        return self.look_hours * self.looks_per_step

    @property
    def slack_step_hours(self) -> float:
        """Slack between two columns of a table."""
        return self.step_hours / 2


@dataclass(frozen=True, eq=False, kw_only=True)
class ValueTable:
    """Costs to complete when something is done now and the best is done afterwards.

    Slack past the end of the table is read at its end, and work past it is paid as on steady capacity: so what is read there
    is never too low. Costs never rise with slack, and between the work and slack of two entries they are interpolated along
    each, so a longer deadline never costs more anywhere.

    Attributes:
        idle: Hold nothing, shape `(work, slack, states)`.
        steady: Run on steady capacity, its restart already taken off the slack; same shape.
        spot: Run on a spot pool, shape `(evictions, restart levels, work, slack, available states)`.
    """

    spec: TableSpec
    idle: Values
    steady: Values
    spot: Values

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self.idle.nbytes + self.steady.nbytes + self.spot.nbytes

    def idle_costs(self, work: float, slack: float) -> Array:
        """Return the cost of holding nothing now, for each state."""
        return self._read(self.idle, work, slack, 0.0)

    def steady_costs(self, work: float, slack: float, restart_left: float) -> Array:
        """Return the cost of running on steady capacity now, for each state."""
        return self._read(self.steady, work, slack, restart_left)

    def spot_costs(
        self, work: float, slack: float, restart_left: float, evictions_per_hour: float
    ) -> Array:
        """Return the cost of running on a spot pool now, for each state in which the market is available."""
        step = self.spec.step_hours
        levels = self.spot.shape[1] - 1
        level = min(max(round((self.spec.restart_hours - restart_left) / step), 0), levels)
        beyond = restart_left - max(self.spec.restart_hours - level * step, 0.0)
        parts = [
            share * self._read(self.spot[layer, level], work, slack, beyond)
            for layer, share in self._layers(evictions_per_hour)
        ]
        costs: Array = np.sum(parts, axis=0)
        return costs

    def _layers(self, evictions_per_hour: float) -> list[tuple[int, float]]:
        """Return the layers around a rate and their shares."""
        rates = self.spec.evictions_per_hour
        ordered = sorted(range(len(rates)), key=rates.__getitem__)
        for low, high in pairwise(ordered):
            if evictions_per_hour < rates[high]:
                share = max(evictions_per_hour - rates[low], 0.0) / (rates[high] - rates[low])
                return [(low, 1.0 - share), (high, share)]
        return [(ordered[-1], 1.0)]

    def _read(self, values: Values, work: float, slack: float, restart: float) -> Array:
        """Interpolate between the kept work and slack; `restart` counts as work, taken off the slack.

        Of less work than is kept, what it lacks is not paid, at the price of spot; of more, what is beyond is, at that of steady.
        """
        kept, columns = values.shape[:2]
        column = min(max((slack - restart) / self.spec.slack_step_hours, 0.0), columns - 1.0)
        row = ((work + restart) / self.spec.step_hours - LEAST_WORK) / KEEP_EVERY
        lacking = max(-row, 0.0) * KEEP_EVERY * self.spec.step_hours
        beyond = max(row - (kept - 1.0), 0.0) * KEEP_EVERY * self.spec.step_hours
        row = min(max(row, 0.0), kept - 1.0)
        low_row, low = min(int(row), kept - 2), min(int(column), columns - 2)
        corner = values[low_row : low_row + 2, low : low + 2].astype(np.float64)
        by_row = corner[0] + (row - low_row) * (corner[1] - corner[0])
        mixed = by_row[0] + (column - low) * (by_row[1] - by_row[0])
        costs: Array = np.maximum(mixed - self.spec.spot_price * lacking, 0.0) + beyond
        return costs


# The least work that costs are kept for, and from there on every how many; in steps. Between them costs are smooth at
# constant slack. Work of nothing costs nothing, but the least of work costs a start.
LEAST_WORK = 1
KEEP_EVERY = 5

# Part of the name under which a table is kept: raise it whenever the programme below changes what it computes.
PROGRAMME_VERSION = 5


def build_table(spec: TableSpec, model: AvailabilityModel) -> ValueTable:
    """Return the table of `spec`; takes about a second of CPU."""
    idle, steady, spot = _Programme(spec, chain_of(market_of(model, spec.pools))).solve()
    return ValueTable(spec=spec, idle=idle, steady=steady, spot=spot)


class _Programme:
    """The dynamic programme.

    Arrays have the shape `(states, slack)`; those of `spot` hold available states only, and come as one list for each rate
    of evictions, by restart level. `restarts[level]` is the restart left at the start of a step, `level` steps after the launch.
    """

    def __init__(self, spec: TableSpec, market: Chain) -> None:
        self.spec = spec
        step, self.half = spec.step_hours, market.half
        self.slack_step = spec.slack_step_hours
        columns = math.ceil(spec.slack_hours / self.slack_step - 1e-9) + 2
        self.slack = np.arange(columns) * self.slack_step
        levels = max(1, math.ceil(spec.restart_hours / step - 1e-9))
        self.restarts = [max(spec.restart_hours - level * step, 0.0) for level in range(levels + 1)]
        self.forced = self.slack < spec.restart_hours + step - 1e-9
        look = market.step(spec.look_hours)
        moves = np.linalg.matrix_power(look, spec.looks_per_step)
        # Capacity is lost when any look within the step finds it gone.
        stays = np.linalg.matrix_power(look[self.half :, self.half :], spec.looks_per_step)
        kept = [math.exp(-rate * step) * stays for rate in spec.evictions_per_hour]
        lost = [moves[self.half :].copy() for _ in kept]
        for there, staying in zip(lost, kept, strict=True):
            there[:, self.half :] -= staying
        self.moves = moves.astype(np.float32)
        self.kept = [matrix.astype(np.float32) for matrix in kept]
        self.lost = [matrix.astype(np.float32) for matrix in lost]

    def solve(self) -> tuple[Values, Values, Values]:
        spec, half = self.spec, self.half
        layers, levels = len(self.kept), len(self.restarts)
        states = [2 * half, 2 * half, *[half] * (layers * levels)]
        kept = _Kept(spec, len(self.slack), states)
        free = np.zeros((2 * half, len(self.slack)), np.float32)
        on_steady, on_spot = free, [[free[half:]] * levels for _ in self.kept]
        for left in range(1, kept.steps + 1):
            complete = self.slack >= left * spec.step_hours - 1e-9
            idle, steady, spot = self.costs(free, on_steady, on_spot)
            running = [(steady, 1.0), *((each, spec.spot_price) for each in chain(*spot))]
            for costs, price in running:
                # Half a step of work is left: the rest of the step is not paid.
                costs[:, 2 * left - 1 : 2 * left] -= np.float32(price * self.slack_step)
            every = [idle, *(costs for costs, _ in running)]
            for costs in every:
                costs[:, complete] = 0.0
            kept.keep(left, every)
            free, on_steady, on_spot = self.best(idle, steady, spot)
            for costs in (free, on_steady, *chain.from_iterable(on_spot)):
                costs[:, complete] = 0.0
        on_idle, steadily, *spots = kept.done()
        by_layer = np.stack(spots).reshape(layers, levels, *spots[0].shape)
        return on_idle, steadily, by_layer

    def costs(
        self, free: Values, on_steady: Values, on_spot: list[list[Values]]
    ) -> tuple[Values, Values, list[list[Values]]]:
        """Return the cost of each thing one can do for a step, given the best costs after it."""
        step, columns = self.spec.step_hours, len(self.slack)
        after = self.moves @ np.hstack([free, on_steady])
        idle = self.later(after[:, :columns], step)
        steady: Values = (after[:, columns:] + np.float32(step)).astype(np.float32)
        price = self.spec.spot_price * step
        spot: list[list[Values]] = []
        for kept, lost, held in zip(self.kept, self.lost, on_spot, strict=True):
            # After a step at one restart level comes the next; at the last there is nothing left to serve.
            ends: list[Values] = np.split(kept @ np.hstack(held[1:]), len(held) - 1, axis=1)
            gone: Values = lost @ free
            layer = [
                self.later(np.add(end, gone, dtype=np.float32), min(restart, step), price)
                for end, restart in zip([*ends, ends[-1]], self.restarts, strict=True)
            ]
            spot.append(layer)
        return idle, steady, spot

    def best(
        self, idle: Values, steady: Values, spot: list[list[Values]]
    ) -> tuple[Values, Values, list[list[Values]]]:
        """Return the best cost when holding nothing, on steady capacity, and on spot.

        Where the slack only just covers one more restart, there is no choice: on to steady capacity, or stay there,
        or stay on spot while it lasts once its restart is over.
        """
        forced, half = self.forced, self.half
        launch = self.later(steady, self.spec.restart_hours)
        free = np.minimum(idle, launch)
        np.minimum(free[half:], spot[0][0], out=free[half:])
        free[:, forced] = launch[:, forced]
        on_steady = np.minimum(free, steady)
        on_steady[:, forced] = steady[:, forced]
        on_spot = [
            [
                self.held(free[half:], costs, launch[half:] if restart > 0 else costs)
                for restart, costs in zip(self.restarts, layer, strict=True)
            ]
            for layer in spot
        ]
        return free, on_steady, on_spot

    def held(self, free: Values, costs: Values, without_choice: Values) -> Values:
        best: Values = np.minimum(free, costs)
        best[:, self.forced] = without_choice[:, self.forced]
        return best

    def later(self, costs: Values, hours: float, plus: float = 0.0) -> Values:
        """Return the costs with `hours` of slack gone, and `plus` paid; hours past the deadline are as dear as steady capacity."""
        position = np.arange(len(self.slack)) - hours / self.slack_step
        late = (np.maximum(-position, 0.0) * self.slack_step).astype(np.float32)
        position = np.maximum(position, 0.0)
        low = np.minimum(position.astype(int), len(self.slack) - 2)
        part = (position - low).astype(np.float32)
        shifted = costs[:, low] * (1 - part) + costs[:, low + 1] * part
        priced: Values = (shifted + late + np.float32(plus)).astype(np.float32)
        return priced


class _Kept:
    """What is kept of the programme's costs: they come by time left and slack, and are kept by work and slack.

    Attributes:
        steps: How many steps of the programme the last entries need.
    """

    def __init__(self, spec: TableSpec, columns: int, shapes: Sequence[int]) -> None:
        work_steps = math.ceil(spec.work_hours / spec.step_hours - 1e-9)
        self.rows = max(2, math.ceil((work_steps - LEAST_WORK) / KEEP_EVERY) + 1)
        self.columns = np.arange(columns)
        self.steps = LEAST_WORK + KEEP_EVERY * (self.rows - 1) + columns // 2
        self.tables = [np.zeros((self.rows, columns, states), np.float32) for states in shapes]

    def keep(self, left: int, costs: Sequence[Values]) -> None:
        """Take what is wanted of the costs with `left` steps left, one array `(states, slack)` for each table."""
        for half_steps, share in ((0, 1.0), (-1, 0.5), (1, 0.5)):
            # A column is half a step of slack: in every second one, entries lie midway between two steps of the programme.
            work = 2 * left - self.columns + half_steps - 2 * LEAST_WORK
            row, rest = np.divmod(work, 2 * KEEP_EVERY)
            chosen = np.flatnonzero((rest == 0) & (row >= 0) & (row < self.rows))
            for table, values in zip(self.tables, costs, strict=True):
                table[row[chosen], chosen] += np.float32(share) * values[:, chosen].T

    def done(self) -> list[Values]:
        """Return the tables; what rounding and midways made dearer with more slack is put right."""
        return [np.minimum.accumulate(table, axis=1) for table in self.tables]
