"""How fast a kind of work goes on a kind of machine: learned from reported progress, seeded by a table.

Speeds are relative: an hour at speed 1 is an hour of `TaskSpec.work`, which is the task on as many A100-80GB as it asks
for, on a whole one where a part would do. Beliefs are about the logarithm of speed, so that half and double are equally far
away. Work that asks for no accelerator is left at the speed that is configured for a pool: a pool says nothing of its
processors to learn by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.model import Heartbeat, Pool, Resources, SpeedSample, TaskSpec
from spillway.placement.feasible import shape_for
from spillway.placement.fractions import compute_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

# Dense 16-bit matrix throughput in TFLOPS and memory bandwidth in TB/s, of one accelerator.
# Sources: the vendors' data sheets: NVIDIA P100, V100 SXM2, T4, A10, A100 SXM, L4, L40S, H100 SXM, H200 SXM and B200
# (HGX); AWS for A10G and Trainium; AMD MI300X; Google Cloud TPU system architecture for v4 to v6e.
_DATA_SHEETS: Final = MappingProxyType(
    {
        "P100": (21.2, 0.732),
        "V100": (125.0, 0.900),
        "T4": (65.0, 0.320),
        "A10": (125.0, 0.600),
        "A10G": (70.0, 0.600),
        "A100": (312.0, 1.555),
        "A100-80GB": (312.0, 2.039),
        "L4": (121.0, 0.300),
        "L40S": (362.0, 0.864),
        "H100": (989.0, 3.35),
        "H200": (989.0, 4.8),
        "B200": (2250.0, 8.0),
        "MI300X": (1307.0, 5.3),
        "Trainium": (190.0, 0.82),
        "tpu-v4": (275.0, 1.228),
        "tpu-v5e": (197.0, 0.819),
        "tpu-v5p": (459.0, 2.765),
        "tpu-v6e": (918.0, 1.64),
    }
)
_REFERENCE: Final = "A100-80GB"

_Machine = tuple[str | None, int, float]

_PROCESSORS: Final = Resources()

# What more accelerators of one machine are worth: eight do the work of 6.5. A guess between the perfect scaling of small
# models and what links cost large ones.
_SCALING: Final = 0.9

# One standard deviation of what is known before anything was measured, in logarithms: a factor of 1.5 where there is a
# data sheet, of 2.5 where there is none.
_SPREAD_FROM_TABLE: Final = math.log(1.5)
_SPREAD_UNKNOWN: Final = math.log(2.5)

# What one lease differs from the next on the same machines: neighbours, input, temperature. The belief about this noise
# counts as much as `_NOISE_SAMPLES` leases would.
_NOISE: Final = math.log(1.15)
_NOISE_SAMPLES: Final = 4.0

HALF_LIFE: Final = timedelta(days=14)
SHORTEST_MEASURE: Final = timedelta(minutes=2)
"""What was measured for a shorter time says more of the first steps than of the work."""

# How far, in standard deviations, a speed is trusted to go up when nothing hangs on it, and down when a deadline does.
_HOPE: Final = 1.0
_CAUTION: Final = 1.645


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedBelief:
    """What is believed of one (workload, accelerator, count, part of it).

    Attributes:
        log_speed: Mean of the natural logarithm of the speed.
        spread: Its standard error; shrinks as leases report.
        samples: How many leases it rests on, old ones counting less.
    """

    log_speed: float
    spread: float
    samples: float = 0.0

    @property
    def speed(self) -> float:
        """The median speed."""
        return math.exp(self.log_speed)

    def at(self, deviations: float) -> float:
        """Return the speed `deviations` standard errors above the median."""
        return math.exp(self.log_speed + deviations * self.spread)


def speed_sample(task: TaskSpec, shape: Resources, heartbeat: Heartbeat) -> SpeedSample | None:
    """Return how fast a lease worked by its last heartbeat; None where it says too little.

    The steps done since its first one, as a share of those that were left then, are that share of `task.work`, which is the
    work that was left when the lease was placed. It says too little without a total, without the first step, or before
    `SHORTEST_MEASURE`. Where the task took no accelerator of the slot's `shape`, it says nothing of those.
    """
    first, last, total = heartbeat.first_step, heartbeat.step, heartbeat.total_steps
    since = heartbeat.first_progress_at
    if first is None or last is None or not total or since is None or last <= first:
        return None
    took = heartbeat.written_at - since
    if took < SHORTEST_MEASURE:
        return None
    done = task.work * ((last - first) / max(total - first, last - first))
    if not shape_for(task, shape).accelerator_count:
        shape = _PROCESSORS
    return SpeedSample(
        workload=task.workload,
        accelerator=shape.accelerator,
        accelerator_count=shape.accelerator_count,
        accelerator_fraction=shape.accelerator_fraction,
        speed=done / took,
        hours=took / timedelta(hours=1),
        measured_at=heartbeat.written_at,
    )


def seed(task: TaskSpec, pool: Pool) -> SpeedBelief:
    """Return what is believed of `task`, which may use accelerators, on `pool` before anything was measured.

    A speed configured for the pool, other than 1, goes before the table. The table is the geometric mean of what the data
    sheets promise of arithmetic and of memory: training lies between the two. It fails for work that fills neither.
    For H100 over A100 it says 2.3; MLPerf Training closed-division results of both say 2 to 3, by model. A slice of an
    accelerator is its share of the compute; work that does not fill the whole goes faster in it. Work is said of what the
    task asks for first; where that is no accelerator, the table tells those apart and not from processors.
    """
    first, there = task.resources, pool.shape
    if pool.speed != 1.0:
        return SpeedBelief(log_speed=math.log(pool.speed), spread=_SPREAD_FROM_TABLE)
    asked = first.accelerator_count or shape_for(task, there).accelerator_count
    more = _SCALING * math.log(max(there.accelerator_count, 1) / max(asked, 1))
    more += math.log(compute_share(there))
    one = None if there.accelerator is None else relative_speed(there.accelerator)
    if one is None:
        return SpeedBelief(log_speed=more, spread=_SPREAD_UNKNOWN)
    spread = _SPREAD_FROM_TABLE if first.accelerator_count else _SPREAD_UNKNOWN
    return SpeedBelief(log_speed=math.log(one) + more, spread=spread)


def relative_speed(accelerator: str) -> float | None:
    """Return the speed of one accelerator against one A100-80GB by their data sheets; None for one without."""
    sheet, reference = _DATA_SHEETS.get(accelerator), _DATA_SHEETS[_REFERENCE]
    if sheet is None:
        return None
    return math.sqrt(sheet[0] / reference[0] * sheet[1] / reference[1])


def learn(start: SpeedBelief, samples: Iterable[SpeedSample], now: datetime) -> SpeedBelief:
    """Return the belief after `samples` of its own workload, accelerator, count and part of it.

    A normal-inverse-gamma update in which a sample counts half after each `HALF_LIFE`, so that a new driver or a new
    dataset is learned anew within weeks. The prior's mean counts as many leases as its spread is wide against the noise.

    Source: Murphy, "Conjugate Bayesian analysis of the Gaussian distribution", 2007, section 6; West and Harrison,
    Bayesian Forecasting and Dynamic Models, 1997, section 6.3 (discounting).
    """
    weighed = [
        (0.5 ** (max(now - sample.measured_at, timedelta(0)) / HALF_LIFE), math.log(sample.speed))
        for sample in samples
    ]
    weight = sum(w for w, _ in weighed)
    if weight <= 0:
        return start
    mean = sum(w * x for w, x in weighed) / weight
    around = sum(w * (x - mean) ** 2 for w, x in weighed)
    strength = (_NOISE / start.spread) ** 2
    total = strength + weight
    surprise = strength * weight / total * (mean - start.log_speed) ** 2
    # A prior that was wrong is not noise between leases: its surprise is bounded by what the prior itself allowed.
    surprise = min(surprise, _NOISE**2)
    variance = (_NOISE_SAMPLES * _NOISE**2 + around + surprise) / (_NOISE_SAMPLES + weight)
    return SpeedBelief(
        log_speed=(strength * start.log_speed + weight * mean) / total,
        spread=math.sqrt(variance / total),
        samples=weight,
    )


def speed_to_reckon_with(
    belief: SpeedBelief, *, work: timedelta, overhead: timedelta, left: timedelta | None
) -> float:
    """Return the speed to place by: hopeful where nothing hangs on it, cautious where the deadline does.

    A hopeful speed makes the unknown look cheap, so that it is tried; what it reports then takes the hope away, or bears
    it out. Where even the cautious speed makes the deadline twice over, a disappointment can still be finished elsewhere,
    so hope costs money at worst. Where it does not, the deadline is not bet on it.

    Source: Kaufmann, Cappé and Garivier, "On Bayesian upper confidence bounds for bandit problems", AISTATS 2012.

    Args:
        belief: What is believed of the speed.
        work: What is left to do, at speed 1.
        overhead: Time from lease to first new work, served twice where the run moves.
        left: Time until the deadline; None where there is none.
    """
    cautious = belief.at(-_CAUTION)
    if left is None or 2 * (overhead + work / cautious) <= left:
        return belief.at(_HOPE)
    return cautious


def with_learned_speeds(
    pools: Iterable[Pool], task: TaskSpec, samples: Iterable[SpeedSample], now: datetime
) -> tuple[Pool, ...]:
    """Return `pools` with the speed to reckon with for `task`, in the same order.

    Args:
        pools: As configured.
        task: What is to be placed.
        samples: What leases of its workload reported; others are left out.
        now: When it is to be placed.
    """
    if not any(shape.accelerator_count for shape in task.shapes):
        return tuple(pools)
    found = _by_machine(task, samples)
    left = None if task.deadline is None else task.deadline - now

    def speed(pool: Pool) -> float:
        if not shape_for(task, pool.shape).accelerator_count:
            return pool.speed
        belief = learn(seed(task, pool), found.get(_machine(pool.shape), ()), now)
        overhead = pool.restart_overhead + task.restart_overhead
        return speed_to_reckon_with(belief, work=task.work, overhead=overhead, left=left)

    return tuple(replace(pool, speed=speed(pool)) for pool in pools)


def _by_machine(
    task: TaskSpec, samples: Iterable[SpeedSample]
) -> Mapping[_Machine, list[SpeedSample]]:
    found: dict[_Machine, list[SpeedSample]] = {}
    for sample in samples:
        if sample.workload == task.workload and sample.speed > 0:
            found.setdefault(_machine(sample), []).append(sample)
    return found


def _machine(what: Resources | SpeedSample) -> _Machine:
    return what.accelerator, what.accelerator_count, what.accelerator_fraction
