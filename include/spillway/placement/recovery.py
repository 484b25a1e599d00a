"""How long a run is leased in expectation, preemptions, lost work and restarts included.

A gang stops when any of its nodes is lost, so its hazard is that of a slot times its nodes. That holds for losses of single
machines; where a provider takes a whole gang back at once it is too high, up to as many times as there are nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Final, Protocol

from spillway.model import Market, TaskSpec
from spillway.placement.cadence import checkpoint_interval

# What a pool without a history is thought to do, so that a new one does not look perfect: a spot machine taken back
# about twice a day, everything else kept. The spot figure is a caution, not a measurement.
PRIOR_PREEMPTIONS_PER_HOUR: Final = {
    Market.RESERVED: 0.0,
    Market.SPOT: 0.1,
    Market.ON_DEMAND: 0.0,
    Market.PARTNER: 0.0,
}

# A run expected to take longer than this is not one that a person would start.
LONGEST_RUN: Final = timedelta(days=3650)
MOST_EVENTS: Final = 1e9


class Capacity(Protocol):
    """What of a pool or an offer decides how a run goes."""

    @property
    def market(self) -> Market:
        """How it is bought."""
        ...

    @property
    def preemptions_per_hour(self) -> float | None:
        """Rate at which one slot of it is taken back; None when unknown."""
        ...

    @property
    def restart_overhead(self) -> timedelta:
        """Time from lease to first instruction."""
        ...

    @property
    def speed(self) -> float:
        """Work done in an hour, relative to speed 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a run is expected to go.

    Attributes:
        leased: Expected leased time; at most `LONGEST_RUN`, which stands for everything longer.
        checkpoint_interval: Time between checkpoints; None when the task writes none.
        preemptions: Expected number of preemptions, and so of starts beside the first; at most `MOST_EVENTS`.
        checkpoints: Expected number of checkpoints written; at most `MOST_EVENTS`.
    """

    leased: timedelta
    checkpoint_interval: timedelta | None
    preemptions: float = 0.0
    checkpoints: float = 0.0


def expected_course(task: TaskSpec, capacity: Capacity) -> Course:
    """Return how `task` is expected to go on `capacity`, from its lease to its end."""
    known = capacity.preemptions_per_hour is not None
    return _course(
        work=undisturbed_work(task, capacity),
        restart=restart_overhead(task, capacity),
        rate=hazard(task, capacity),
        write=task.checkpoint_write if task.checkpoints else None,
        is_rate_known=known,
    )


# A decision asks for the course on one offer several times: to price it, to check it, and to compare it.
@lru_cache(maxsize=4096)
def _course(
    *,
    work: timedelta,
    restart: timedelta,
    rate: float,
    write: timedelta | None,
    is_rate_known: bool,
) -> Course:
    """Return the course of a run; `write` is the time a checkpoint takes, None where none is written."""
    if write is None:
        interval, segment, write = None, work, timedelta(0)
    else:
        interval = checkpoint_interval(write, rate if is_rate_known else None)
        segment = min(interval, work)
    hours = _hours(restart) + expected_hours(
        work=_hours(work),
        hazard=rate,
        restart=_hours(restart),
        write=_hours(write),
        interval=_hours(segment),
    )
    leased = LONGEST_RUN if hours >= _hours(LONGEST_RUN) else timedelta(hours=hours)
    preemptions = expected_preemptions(
        work=_hours(work), hazard=rate, write=_hours(write), interval=_hours(segment)
    )
    checkpoints = work / interval if interval else 0.0
    return Course(
        leased=leased,
        checkpoint_interval=interval,
        preemptions=min(preemptions, MOST_EVENTS),
        checkpoints=min(checkpoints, MOST_EVENTS),
    )


def expected_hours(
    *, work: float, hazard: float, restart: float, write: float, interval: float
) -> float:
    """Return the expected hours of `work` hours done in segments of `interval`, a checkpoint after each.

    `(1/h + R) (exp(h (t + d)) - 1) W / t`: a segment cut short by a preemption, which come at rate `h`, is done again
    after a restart of `R` hours. Written with `expm1` so that the limit at `h = 0`, `W (t + d) / t`, is exact and
    reached smoothly. Infinite where a segment is so long against `1/h` that it never ends.

    Exact for preemptions that are a Poisson process and spare restarts. It fails where capacity is taken back in
    bursts, and is too low by about `exp(h R) / (1 + h R)` where restarts are preempted too.

    Source: Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation
    Computer Systems 22, 2006.
    """
    if work <= 0:
        return 0.0
    segment = interval + write
    exponent = hazard * segment
    try:
        growth = math.expm1(exponent)
    except OverflowError:
        return math.inf
    stretch = growth / exponent if exponent > 0 else 1.0
    return (segment * stretch + restart * growth) * (work / interval)


def expected_preemptions(*, work: float, hazard: float, write: float, interval: float) -> float:
    """Return how often `work` hours done in segments of `interval` are expected to be preempted: `(exp(h (t + d)) - 1) W / t`.

    The number of tries a segment needs is geometric, with the chance `exp(-h (t + d))` of lasting through it. Infinite
    where the run is; preemptions of restarts are not counted, as in `expected_hours`.
    """
    if work <= 0:
        return 0.0
    try:
        return math.expm1(hazard * (interval + write)) * (work / interval)
    except OverflowError:
        return math.inf


def hazard(task: TaskSpec, capacity: Capacity) -> float:
    """Return the preemptions per hour to reckon with, on any of the task's nodes: by the pool's own rate, or its market's."""
    known = capacity.preemptions_per_hour
    each = PRIOR_PREEMPTIONS_PER_HOUR[capacity.market] if known is None else known
    return each * task.nodes


def undisturbed_work(task: TaskSpec, capacity: Capacity) -> timedelta:
    """Return the time `task` works at the speed of `capacity` when nothing interrupts it."""
    return task.work / capacity.speed


def restart_overhead(task: TaskSpec, capacity: Capacity) -> timedelta:
    """Return the time from lease to first new work, the pool's part and the task's."""
    return capacity.restart_overhead + task.restart_overhead


def _hours(duration: timedelta) -> float:
    return duration / timedelta(hours=1)
