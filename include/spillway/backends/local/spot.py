"""When a spot pool takes its capacity back: pure functions of its options and the time."""

from __future__ import annotations

import hashlib
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.backends.local.options import Hazard, Lifetimes, Period, Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

HOURS_PER_YEAR = 8766.0

Interruptions = Trace | Hazard | Lifetimes | None


def has_capacity(
    interruptions: Interruptions, *, began_at: datetime, now: datetime, launches: int
) -> bool:
    """Return whether a job may start now in a pool whose clock began at `began_at`, after so many `launches` of nodes."""
    if isinstance(interruptions, Lifetimes):
        return launches < len(interruptions.lifetimes)
    if not isinstance(interruptions, Trace):
        return True
    return is_up(_periods(interruptions), _pool_seconds(began_at, now, interruptions.speed))


def taken_back_at(
    interruptions: Interruptions, *, began_at: datetime, launched_at: datetime, ordinal: int
) -> datetime | None:
    """Return when the pool will take back the job it launched as its `ordinal`th; None for never."""
    if interruptions is None:
        return None
    if isinstance(interruptions, Hazard):
        lifetime = draw_lifetime(interruptions.seed, ordinal, interruptions.preemptions_per_hour)
        return launched_at + lifetime / interruptions.speed
    if isinstance(interruptions, Lifetimes):
        lifetimes = interruptions.lifetimes
        seconds = lifetimes[ordinal] if ordinal < len(lifetimes) else 0.0
        return launched_at + timedelta(seconds=seconds / interruptions.speed)
    launched = _pool_seconds(began_at, launched_at, interruptions.speed)
    end = end_of_up(_periods(interruptions), launched)
    if end is None:
        return None
    return began_at + timedelta(seconds=end / interruptions.speed)


def is_up(periods: Sequence[Period], seconds: float) -> bool:
    """Return whether there is capacity `seconds` after the trace's start."""
    for up, down in periods:
        if seconds < up:
            return True
        seconds -= up
        if seconds < down:
            return False
        seconds -= down
    return True


def end_of_up(periods: Sequence[Period], seconds: float) -> float | None:
    """Return when the capacity that is there `seconds` after the trace's start goes; None when it stays.

    Periods without a gap between them are one.
    """
    end = 0.0
    for up, down in periods:
        end += up
        if seconds < end and down > 0:
            return end
        if end <= seconds < end + down:
            return seconds  # there is none now
        end += down
    return None


def draw_lifetime(seed: int, ordinal: int, preemptions_per_hour: float) -> timedelta:
    """Return how long the `ordinal`th job lives: exponential, the same for the same seed and ordinal."""
    digest = hashlib.blake2b(f"{seed}/{ordinal}".encode(), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") >> 11) / 2**53  # in [0, 1)
    hours = -math.log1p(-uniform) / preemptions_per_hour
    return timedelta(hours=min(hours, HOURS_PER_YEAR))  # timedelta has an end


def _pool_seconds(began_at: datetime, now: datetime, speed: float) -> float:
    return max((now - began_at).total_seconds(), 0.0) * speed


def _periods(trace: Trace) -> Sequence[Period]:
    assert not isinstance(trace.trace, Path), "read_options has read the file"
    return trace.trace
