"""Slurm: the time limit of the job, before which everything must be saved.

Slurm's signals (`--signal`, preemption, `scancel`) come as signals: `runtime/signals.py`.
Source: sbatch(1), "OUTPUT ENVIRONMENT VARIABLES" (slurm.schedmd.com/sbatch.html); older Slurms do not say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spillway.runtime.clock import Clock, SystemClock
from spillway.runtime.notice.notice import NoticeSeen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class SlurmWatcher:
    """Knows when the job's time is up. A limit that was changed since the job began is not known here."""

    name = "slurm"
    period_seconds = 5.0

    def __init__(self, environment: Mapping[str, str], clock: Clock | None = None) -> None:
        self._environment = environment
        self._clock = clock or SystemClock()

    def look(self) -> NoticeSeen | None:
        """Return the end of the job as a notice, which becomes due when it is near; None without a limit."""
        left = seconds_to_end(self._environment, now=self._clock.now())
        if left is None:
            return None
        return NoticeSeen(
            source=self.name, reason="the Slurm job reaches its time limit", seconds_left=left
        )


def seconds_to_end(environment: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the time until the Slurm job's end; None outside of a job, or when it has no limit.

    Never more than the whole limit, whatever the clock of this machine says.
    """
    end = _seconds(environment, "SLURM_JOB_END_TIME")
    if end is None:
        return None
    start = _seconds(environment, "SLURM_JOB_START_TIME")
    left = end - (now or SystemClock().now()).timestamp()
    return max(left if start is None else min(left, end - start), 0.0)


def _seconds(environment: Mapping[str, str], name: str) -> float | None:
    text = environment.get(name, "")
    return float(text) if text.isdecimal() and int(text) > 0 else None
