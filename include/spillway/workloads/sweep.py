"""A search for good parameters: Ray Tune inside one lease, and a table of ended trials that outlives the lease.

The table is saved whenever a trial ends. A sweep that goes on elsewhere starts again the trials that were running and repeats
none that had ended.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import JsonValue

from spillway.errors import SpecError, TaskFailedError
from spillway.model import codec
from spillway.workloads.search import Report, Search, running
from spillway.workloads.space import draw, parse_space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spillway.runtime import Session

_MOST_FAILURES = 3
_LAST_LINES = 12


class TrialStatus(StrEnum):
    """How a trial ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """The others were better at the same step."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTrial:
    """One row of the table.

    Attributes:
        metric: As last reported; None when nothing was, or no number.
        error: The end of its traceback, if it failed.
    """

    trial: int
    params: dict[str, JsonValue]
    metric: float | None
    steps: int
    status: TrialStatus
    error: str | None = None


def sweep(  # noqa: PLR0913  # the arguments of a task are flat JSON
    session: Session,
    *,
    dataset: str,
    space: Mapping[str, JsonValue],
    num_samples: int,
    max_steps: int,
    grace_steps: int | None = None,
    metric: str = "validation_loss",
    mode: str = "min",
    reduction_factor: int = 2,
    seed: int = 0,
    trainable: str = "spillway.workloads.train:trial",
    cpus: int | None = None,
    cpus_per_trial: int = 1,
) -> dict[str, JsonValue]:
    """Try `num_samples` points of `space` and return the best and the table of all trials.

    Args:
        session: The attempt it runs in.
        dataset: Folder of the dataset, handed on to each trial.
        space: As `space.parse_space` reads it.
        num_samples: Trials in all.
        max_steps: Steps of a trial that is not stopped early.
        grace_steps: Steps before which none is stopped; a quarter of `max_steps` unless given.
        metric: Name of the reported number that counts.
        mode: `min` or `max`.
        reduction_factor: One in so many trials goes on at each rung (Li et al., A System for Massively Parallel
            Hyperparameter Tuning, 2020).
        seed: Of the points, and of each trial's own random numbers.
        trainable: `package.module:function`, see `search.Search`.
        cpus: CPUs of the lease; all this process may use unless given.
        cpus_per_trial: CPUs each trial takes.

    Raises:
        SpecError: An argument cannot be, or the checkpoint is of a sweep with other arguments.
        TaskFailedError: Every trial fails; shows the last one's error.
        Preempted: The capacity is taken back, and the table is saved.
    """
    domains = parse_space(space)
    cpus = cpus or len(os.sched_getaffinity(0))
    search = Search(
        trainable=trainable,
        dataset=dataset,
        metric=metric,
        mode=mode,
        max_steps=max_steps,
        grace_steps=grace_steps or max(1, max_steps // 4),
        reduction_factor=reduction_factor,
        seed=seed,
        cpus_per_trial=cpus_per_trial,
    )
    _check(search, num_samples=num_samples, cpus=cpus)
    points = {trial: draw(domains, seed=seed, trial=trial) for trial in range(num_samples)}
    table = _Table(session, search, points)
    table.restore()
    if table.remaining():
        with running(search, table.remaining(), cpus=cpus) as reports:
            for report in reports:
                table.leave_if_preempted()
                if report:
                    table.take(report)
    return table.result()


class _Table:
    """The trials that have ended, in memory and in the checkpoint store."""

    def __init__(
        self, session: Session, search: Search, points: Mapping[int, dict[str, JsonValue]]
    ) -> None:
        self._session = session
        self._search = search
        self._points = points
        self._rows: dict[int, EndedTrial] = {}

    def restore(self) -> None:
        """Take over the rows of the attempt before."""
        checkpoint = self._session.restore()
        if checkpoint is None:
            return
        for name, now in self._identity().items():
            then = checkpoint.metadata.get(name)
            if then != now:
                raise SpecError(
                    f"the checkpoint is of a sweep with {name} {then} and this one has {now}: "
                    "ask for a fresh start, or give what it was begun with"
                )
        rows = [codec.decode(row, EndedTrial) for row in checkpoint.state["trials"]]
        self._rows = {row.trial: row for row in rows}

    def remaining(self) -> dict[int, dict[str, JsonValue]]:
        """Return the parameters of the trials that have not ended."""
        return {trial: params for trial, params in self._points.items() if trial not in self._rows}

    def take(self, report: Report) -> None:
        """Pass a report on as progress; a trial's last becomes a row, and the table is saved."""
        if report.is_last:
            self._rows[report.trial] = self._row(report)
        metrics = {} if report.value is None else {self._search.metric: report.value}
        best = self._best()
        if best is not None and best.metric is not None:
            metrics["best"] = best.metric
        self._session.progress(len(self._rows), len(self._points), **metrics)
        if report.is_last:
            self._save()
            self._stop_if_hopeless()

    def leave_if_preempted(self) -> None:
        """Raise `Preempted`, with the table saved, once the capacity will be taken back.

        Comes before a report is taken: a trial that fails then most likely fails because of that.
        """
        if self._session.preempted:
            self._save()

    def result(self) -> dict[str, JsonValue]:
        """Return the best trial's parameters and metric, and every row.

        Raises:
            TaskFailedError: There is no trial to choose.
        """
        if self.remaining():
            raise self._failure("Ray ended before the trials did; the lines before say why")
        best = self._best()
        if best is None:
            raise self._failure("no trial gave a number to compare")
        return {
            "best": {"params": best.params, "metric": best.metric, "trial": best.trial},
            "trials": [codec.encode(self._rows[trial]) for trial in sorted(self._rows)],
        }

    def _row(self, report: Report) -> EndedTrial:
        error = report.error
        if error is None and report.value is None:
            error = f"its {self._search.metric} is no number"
        if error is not None:
            status = TrialStatus.FAILED
        elif report.step >= self._search.max_steps:
            status = TrialStatus.FINISHED
        else:
            status = TrialStatus.STOPPED
        return EndedTrial(
            trial=report.trial,
            params=self._points[report.trial],
            metric=report.value,
            steps=report.step,
            status=status,
            error=_last_lines(error) if error else None,
        )

    def _best(self) -> EndedTrial | None:
        """Return the best of the trials that ran longest: one stopped early was worse than those that went on."""
        rows = [row for row in self._rows.values() if row.status is not TrialStatus.FAILED]
        sign = 1 if self._search.mode == "min" else -1
        return min(
            rows, key=lambda row: (-row.steps, sign * (row.metric or 0.0), row.trial), default=None
        )

    def _save(self) -> None:
        rows = [codec.encode(self._rows[trial]) for trial in sorted(self._rows)]
        begun_with = self._identity()
        self._session.checkpoint(
            len(rows),
            {"trials": rows},
            search=begun_with["search"],
            points=begun_with["points"],
        )

    def _stop_if_hopeless(self) -> None:
        failed = [row for row in self._rows.values() if row.status is TrialStatus.FAILED]
        if len(failed) == len(self._rows) and len(failed) >= _MOST_FAILURES:
            raise self._failure(f"the first {len(failed)} trials failed, so the rest is not tried")

    def _failure(self, what: str) -> TaskFailedError:
        errors = [row.error for row in self._rows.values() if row.error]
        return TaskFailedError(
            "\n".join([what, *errors[-1:]]),
            key=self._session.key,
            exit_code=None,
        )

    def _identity(self) -> dict[str, JsonValue]:
        points: Sequence[JsonValue] = list(self._points.values())
        return {"search": asdict(self._search), "points": list(points)}


def _check(search: Search, *, num_samples: int, cpus: int) -> None:
    """Refuse what Ray would only complain about later, or wait for for ever.

    Raises:
        SpecError: Names the argument and the remedy.
    """
    for name, number, least in (
        ("num_samples", num_samples, 1),
        ("max_steps", search.max_steps, 1),
        ("grace_steps", search.grace_steps, 1),
        ("reduction_factor", search.reduction_factor, 2),
        ("cpus_per_trial", search.cpus_per_trial, 1),
        ("seed", search.seed, 0),
    ):
        if number < least:
            raise SpecError(f"{name} is {number}: give {least} or more")
    if search.mode not in ("min", "max"):
        raise SpecError(f"mode is {search.mode!r}: give min or max")
    if search.grace_steps > search.max_steps:
        raise SpecError(
            f"grace_steps {search.grace_steps} is over max_steps: give {search.max_steps} or less"
        )
    if search.cpus_per_trial > cpus:
        raise SpecError(
            f"a trial wants {search.cpus_per_trial} CPUs and the lease has {cpus}: give cpus_per_trial up to {cpus}"
        )
    module, colon, function = search.trainable.partition(":")
    if not (module and colon and function) or not _exists(module):
        raise SpecError(
            f"trainable {search.trainable!r} is not there: give package.module:function of something installed"
        )


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _last_lines(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])
