"""How fast a job works now: recent steps count more than old ones."""

from __future__ import annotations

import math

HALF_LIFE_SECONDS = 60.0
"""What was a minute ago counts half as much as what is now."""


class Rate:
    """Steps per second, as steps and time that both fade alike: right for a steady job, however unevenly it reports.

    It starts where the first step is noted, and again wherever steps go back.
    """

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._steps = self._seconds = 0.0

    def note(self, step: int, now: float) -> float | None:
        """Take in that `step` steps are done at `now`, in seconds; return steps per second, None while unknown."""
        last_step, last_time = self._last or (step, now)
        if step < last_step:
            self._steps = self._seconds = 0.0
            last_step, last_time = step, now
        self._last = (step, now)
        passed = max(now - last_time, 0.0)
        fade = math.exp2(-passed / HALF_LIFE_SECONDS)
        self._steps = self._steps * fade + (step - last_step)
        self._seconds = self._seconds * fade + passed
        return self._steps / self._seconds if self._seconds > 0 else None
