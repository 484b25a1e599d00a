"""The table of a sweep's trials: what each reported, what it cost, and which is the best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import JsonValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LAST_LINES = 12


class TrialStatus(StrEnum):
    """How a trial ended, or that it has not."""

    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    """The others were better at the same step."""
    CUT = "cut"
    """It was running when the sweep ended for a limit."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trial.

    Attributes:
        metric: As last reported; None when nothing was, or no number.
        error: The end of its traceback, if it failed.
        seconds: Time it worked until it last reported, over all attempts; work that was lost and repeated counts twice.
        marginal_usd: Its share of what its leases add to the bill in that time, by their prices at launch.
        effective_usd: The same with commitments amortised. The ledger's cost records are what counts; these are for comparing.
        pools: Where it ran, in order.
        curve: Step and metric of each report.
        checkpoint_step: Where it can go on from; None for its beginning.
    """

    trial: int
    params: dict[str, JsonValue]
    metric: float | None = None
    steps: int = 0
    status: TrialStatus = TrialStatus.RUNNING
    error: str | None = None
    seconds: float = 0.0
    marginal_usd: float = 0.0
    effective_usd: float = 0.0
    pools: tuple[str, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    checkpoint_step: int | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status is not TrialStatus.RUNNING

    def reported(self, step: int, value: float | None) -> Row:
        """Return the row after one more report."""
        before = tuple(point for point in self.curve if point[0] < step)
        curve = before if value is None else (*before, (step, value))
        return replace(self, steps=step, metric=value, curve=curve)

    def rewound(self) -> Row:
        """Return the row as it was at its last checkpoint, or at its beginning."""
        step = self.checkpoint_step or 0
        curve = tuple(point for point in self.curve if point[0] <= step)
        return replace(self, steps=step, metric=curve[-1][1] if curve else None, curve=curve)

    def ended(self, *, max_steps: int, error: str | None, metric_name: str) -> Row:
        """Return the row of a trial that says no more."""
        if error is None and not self.steps:
            error = f"it ended without a report of {metric_name}"
        elif error is None and self.metric is None:
            error = f"its {metric_name} is no number"
        if error is not None:
            return replace(self, status=TrialStatus.FAILED, error=_last_lines(error))
        is_whole = self.steps >= max_steps
        return replace(self, status=TrialStatus.FINISHED if is_whole else TrialStatus.STOPPED)


def best_of(rows: Iterable[Row], *, mode: str) -> Row | None:
    """Return the best of the trials that ran longest: one stopped early was worse than those that went on."""
    sign = 1 if mode == "min" else -1
    compared = [
        row for row in rows if row.has_ended and row.status is not TrialStatus.FAILED and row.curve
    ]
    return min(
        compared,
        key=lambda row: (-row.steps, sign * (row.metric or 0.0), row.trial),
        default=None,
    )


def final_values(rows: Iterable[Row]) -> Sequence[float]:
    """Return the last metric of each trial that ended and has one, in order of the trials."""
    ended = sorted((row for row in rows if row.has_ended), key=lambda row: row.trial)
    return [
        row.metric
        for row in ended
        if row.metric is not None and row.status is not TrialStatus.FAILED
    ]


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
