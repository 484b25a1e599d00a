"""How often a task should save a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

UNKNOWN_HAZARD_INTERVAL: Final = timedelta(minutes=10)

# Below the shortest, the loop does little but save; past the longest, a bug or a power cut that no hazard counts
# costs more than the saving does.
SHORTEST_INTERVAL: Final = timedelta(seconds=5)
LONGEST_INTERVAL: Final = timedelta(hours=1)

ASSUMED_WRITE: Final = timedelta(seconds=10)
"""What a save is taken to cost before one has been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveCost:
    """What saving once costs.

    Attributes:
        stall: Time the work loses to it.
        write: Time until the checkpoint counts, during which the work goes on; the next save waits for it.
    """

    stall: timedelta
    write: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often to save, and why.

    Attributes:
        interval: Time of work between two checkpoints.
        reason: Why it is that long, for people.
        expected_loss: Work that a preemption costs on average: half an interval, and the write it comes too early for.
        wasted: Share of the time that goes into saving and into work done again; None when the hazard is unknown.
    """

    interval: timedelta
    reason: str
    expected_loss: timedelta
    wasted: float | None = None


def checkpoint_interval(
    write: timedelta, preemptions_per_hour: float | None, *, stall: timedelta | None = None
) -> timedelta:
    """Return the time of work between two checkpoints that wastes least: `sqrt(2 d / h)`, within bounds.

    `d` is the `stall`, which is the whole write unless it is done beside the work. Holds while `d` is small against the mean
    time between preemptions `1/h`; where it is not, the interval is kept at least as long as the write.

    Source: Young, "A first order approximation to the optimum checkpoint interval", CACM 17 (9), 1974.
    """
    if preemptions_per_hour is None:
        return max(UNKNOWN_HAZARD_INTERVAL, write)
    longest = max(LONGEST_INTERVAL, write)
    if preemptions_per_hour == 0:
        return longest
    hours = math.sqrt(2 * _hours(write if stall is None else stall) / preemptions_per_hour)
    if hours >= _hours(longest):
        return longest
    return max(SHORTEST_INTERVAL, write, timedelta(hours=hours))


def cadence(
    preemptions_per_hour: float | None,
    *,
    given: timedelta | None = None,
    measured: SaveCost | None = None,
) -> Cadence:
    """Return how often to save on capacity with this hazard.

    Args:
        preemptions_per_hour: None when unknown.
        given: Interval that was asked for. It holds until a save has been measured, and after that too where the hazard is
            unknown, for then nothing better is known.
        measured: What a save costs; None before the first.
    """
    cost = measured or SaveCost(stall=ASSUMED_WRITE, write=timedelta(0))
    if given is not None and (measured is None or preemptions_per_hour is None):
        interval = max(given, cost.write)
        reason = "it was asked for" if interval == given else _AS_LONG_AS_THE_WRITE
    else:
        interval = checkpoint_interval(cost.write, preemptions_per_hour, stall=cost.stall)
        reason = _why(interval, preemptions_per_hour, cost, is_measured=measured is not None)
    return Cadence(
        interval=interval,
        reason=reason,
        expected_loss=interval / 2 + cost.write,
        wasted=_wasted(interval, preemptions_per_hour, cost),
    )


_AS_LONG_AS_THE_WRITE: Final = "a checkpoint takes that long to be written"


def _why(
    interval: timedelta, preemptions_per_hour: float | None, cost: SaveCost, *, is_measured: bool
) -> str:
    if interval == cost.write:
        return _AS_LONG_AS_THE_WRITE
    if preemptions_per_hour is None:
        return "how often the capacity is taken back is unknown"
    if interval == LONGEST_INTERVAL:
        return "the capacity is hardly ever taken back, and other things break"
    how = "measured" if is_measured else "assumed"
    costs = f"a save costs {cost.stall.total_seconds():.2g} s of work ({how})"
    known = f"{costs}, and the capacity is taken back {preemptions_per_hour:.2g} times an hour"
    return f"{known}; more often is never worth it" if interval == SHORTEST_INTERVAL else known


def _wasted(
    interval: timedelta, preemptions_per_hour: float | None, cost: SaveCost
) -> float | None:
    """Return the first order of what Young's interval minimises: saving, and work done again."""
    if preemptions_per_hour is None or not interval:
        return None
    again = preemptions_per_hour * _hours(interval / 2 + cost.write)
    return min(1.0, cost.stall / interval + again)


def _hours(duration: timedelta) -> float:
    return duration / timedelta(hours=1)
