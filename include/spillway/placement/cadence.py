"""How often a task should save a checkpoint."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

UNKNOWN_HAZARD_INTERVAL: Final = timedelta(minutes=10)

# Below the shortest, the loop does little but save; past the longest, a bug or a power cut that no hazard counts
# costs more than the saving does.
SHORTEST_INTERVAL: Final = timedelta(seconds=5)
LONGEST_INTERVAL: Final = timedelta(hours=1)


def checkpoint_interval(write: timedelta, preemptions_per_hour: float | None) -> timedelta:
    """Return the time of work between two checkpoints that wastes least: `sqrt(2 d / h)`, within bounds.

    Holds while the write time `d` is small against the mean time between preemptions `1/h`; where it is not, the
    interval is kept at least as long as the write.

    Source: Young, "A first order approximation to the optimum checkpoint interval", CACM 17 (9), 1974.
    """
    if preemptions_per_hour is None:
        return max(UNKNOWN_HAZARD_INTERVAL, write)
    longest = max(LONGEST_INTERVAL, write)
    if preemptions_per_hour == 0:
        return longest
    hours = math.sqrt(2 * _hours(write) / preemptions_per_hour)
    if hours >= _hours(longest):
        return longest
    return max(SHORTEST_INTERVAL, write, timedelta(hours=hours))


def _hours(duration: timedelta) -> float:
    return duration / timedelta(hours=1)
