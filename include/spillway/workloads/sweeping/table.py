"""The trials of a sweep in memory and in the checkpoint store, with the checkpoints of those that run."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.errors import SpecError, TaskFailedError, WrongCheckpointError
from spillway.model import codec
from spillway.workloads.sweeping.limits import Spent
from spillway.workloads.sweeping.rows import Row, TrialStatus, best_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import JsonValue

    from spillway.runtime import Session
    from spillway.workloads.search import Report, Search

_MOST_FAILURES = 3
_MOST_LOSSES = 3
"""How often a trial may lose its process before that counts as its own failure."""


class Table:
    """One sweep's trials.

    Attributes:
        rows: Those that have begun, by number.
        spent: What the sweep has taken, over all attempts.
        stopped_by: Why it ended before all trials did; None unless so.
        arrivals: Folder for checkpoints that have just been made.
    """

    def __init__(
        self,
        session: Session,
        search: Search,
        *,
        space: Mapping[str, JsonValue],
        num_samples: int,
        share: float,
    ) -> None:
        self.search = search
        self.num_samples = num_samples
        self.rows: dict[int, Row] = {}
        self.spent = Spent()
        self.stopped_by: str | None = None
        self._session = session
        self._space = dict(space)
        self._share = share
        self._paid_at = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="sweep-", dir=session.scratch))
        self.arrivals = folder / "arrivals"
        self.arrivals.mkdir()
        self._kept = folder / "kept"
        self._losses: Counter[int] = Counter()
        # How many steps were done at the last save, and the step that it was saved as.
        self._saved: tuple[int, int] | None = None

    @property
    def ended(self) -> int:
        """How many trials have ended."""
        return sum(row.has_ended for row in self.rows.values())

    @property
    def remaining(self) -> int:
        """How many have not, begun or not."""
        return self.num_samples - self.ended

    def restore(self) -> None:
        """Take over what the attempt before saved.

        Raises:
            WrongCheckpointError: It was another sweep.
        """
        checkpoint = self._session.restore()
        if checkpoint is None:
            return
        for name, now in self._identity().items():
            then = checkpoint.metadata.get(name)
            if then != now:
                raise WrongCheckpointError(
                    f"the checkpoint is of a sweep with {name} {then} and this one has {now}: "
                    "ask for a fresh start, or give what it was begun with"
                )
        state = checkpoint.state
        self.rows = {
            row["trial"]: codec.decode(row, Row)
            for row in state["trials"]
            if row["trial"] < self.num_samples
        }
        self.spent = codec.decode(state["spent"], Spent)
        self.stopped_by = state["stopped_by"]
        if any(row.checkpoint_step is not None for row in self._running()):
            checkpoint.files(into=self._kept)
        self.rewind()
        self._saved = self._steps_done(), checkpoint.step

    def rewind(self) -> None:
        """Let the trials that were running be where they can go on from."""
        for row in self._running():
            self.rows[row.trial] = row.rewound()

    def checkpoints(self) -> dict[int, str]:
        """Return the folder that each running trial goes on from; of those that have one."""
        return {
            row.trial: str(self._folder(row.trial))
            for row in self._running()
            if row.checkpoint_step is not None
        }

    def take(self, reports: Sequence[Report]) -> None:
        """Put reports into their rows, then save when a trial has ended or it is time to.

        All that have come are taken before one save: where saving is slow, the table is no more than one save behind.

        Raises:
            SpecError: Nothing can be run at all.
            TaskFailedError: No trial has come to an end but by failing, and some have.
        """
        for report in reports:
            if report.refused is not None:
                raise SpecError(report.refused)
            self._take(report)
        if not reports:
            return
        self._tell(reports[-1])
        if any(report.is_last for report in reports) or self._session.should_checkpoint(
            self._number(self._steps_done())
        ):
            self.save()
        self._stop_if_hopeless()

    def pay(self) -> None:
        """Add the lease's time since the last call."""
        now = time.monotonic()
        self.spent = self.spent.and_lease(self._session.submission, now - self._paid_at)
        self._paid_at = now

    def cut(self, why: str) -> None:
        """End the trials that run, for a limit, and save."""
        self.stopped_by = why
        for row in self._running():
            self.rows[row.trial] = replace(row, status=TrialStatus.CUT)
        self.save(
            beyond=1
        )  # with none running this may be a step that was saved, and is not the same

    def leave_if_preempted(self) -> None:
        """Raise `Preempted`, with the table saved, once the capacity will be taken back.

        Comes before a report is taken: a trial that fails then most likely fails because of that.
        """
        if self._session.preempted:
            self.save()

    def save(self, *, beyond: int = 0) -> None:
        """Save the rows, and the checkpoints of running trials, as `beyond` steps more than are done."""
        begun_with = self._identity()
        steps = self._steps_done() + beyond
        number = self._number(steps)
        self._session.checkpoint(
            number,
            {
                "trials": self.as_json(self.rows.values(), curves=True),
                "spent": asdict(self.spent),
                "stopped_by": self.stopped_by,
            },
            files=self._kept if self.checkpoints() else None,
            search=begun_with["search"],
            space=begun_with["space"],
        )
        self._saved = steps, number

    def as_json(self, rows: Iterable[Row], *, curves: bool) -> list[JsonValue]:
        """Return the rows, in order; their curves are most of them."""
        encoded: list[JsonValue] = []
        for row in sorted(rows, key=lambda row: row.trial):
            fields = codec.encode(row)
            assert isinstance(fields, dict)
            if not curves:
                del fields["curve"], fields["checkpoint_step"]
            encoded.append(fields)
        return encoded

    def failure(self, what: str) -> TaskFailedError:
        """Return the error to raise, with the last trial's own."""
        errors = [row.error for row in self.rows.values() if row.error]
        return TaskFailedError(
            "\n".join([what, *errors[-1:]]), key=self._session.key, exit_code=None
        )

    def _running(self) -> list[Row]:
        return [row for row in self.rows.values() if not row.has_ended]

    def _folder(self, trial: int) -> Path:
        return self._kept / str(trial)

    def _take(self, report: Report) -> None:
        row = self.rows.get(report.trial) or Row(trial=report.trial, params=report.params or {})
        if report.params is not None:
            row = replace(row, params=report.params)
        row = self._charged(row, report.seconds)
        if report.checkpoint is not None:
            row = self._with_checkpoint(row, Path(report.checkpoint), report.step)
        elif report.step > 0 and not report.is_last and not report.is_lost:
            row = row.reported(report.step, report.value)
        if report.is_lost:
            self._losses[row.trial] += 1
        if report.is_last or self._losses[row.trial] >= _MOST_LOSSES:
            row = row.ended(
                max_steps=self.search.max_steps, error=report.error, metric_name=self.search.metric
            )
            shutil.rmtree(self._folder(row.trial), ignore_errors=True)
        self.rows[row.trial] = row

    def _charged(self, row: Row, seconds: float) -> Row:
        pool = self._session.submission.pool
        price = Spent().and_lease(self._session.submission, seconds * self._share)
        return replace(
            row,
            seconds=row.seconds + seconds,
            marginal_usd=row.marginal_usd + price.marginal_usd,
            effective_usd=row.effective_usd + price.effective_usd,
            pools=row.pools if row.pools[-1:] == (pool,) else (*row.pools, pool),
        )

    def _with_checkpoint(self, row: Row, arrived: Path, step: int) -> Row:
        folder = self._folder(row.trial)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        arrived.rename(folder)
        return replace(row, checkpoint_step=step)

    def _number(self, steps: int) -> int:
        """Return the step to save as when `steps` are done: more than the last, unless they are as many.

        They become fewer when a trial leaves its own checkpoint for one of another's, which is of an earlier step.
        """
        if self._saved is None:
            return steps
        then, number = self._saved
        return number if steps == then else max(steps, number + 1)

    def _steps_done(self) -> int:
        """Return the steps that would not be done again; a trial that ended early counts as whole."""
        return self.ended * self.search.max_steps + sum(
            row.checkpoint_step or 0 for row in self._running()
        )

    def _tell(self, report: Report) -> None:
        metrics = {} if report.value is None else {self.search.metric: report.value}
        best = best_of(self.rows.values(), mode=self.search.mode)
        if best is not None and best.metric is not None:
            metrics["best"] = best.metric
        done = self.ended * self.search.max_steps + sum(row.steps for row in self._running())
        self._session.progress(done, self.num_samples * self.search.max_steps, **metrics)

    def _stop_if_hopeless(self) -> None:
        failed = [row for row in self.rows.values() if row.status is TrialStatus.FAILED]
        if len(failed) == self.ended and len(failed) >= _MOST_FAILURES:
            raise self.failure(f"the first {len(failed)} trials failed, so the rest is not tried")

    def _identity(self) -> dict[str, JsonValue]:
        return {"search": asdict(self.search), "space": self._space}
