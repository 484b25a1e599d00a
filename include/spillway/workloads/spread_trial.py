"""A user's trial inside a lease of its own: its reports go to the study, its checkpoints to the session."""

from __future__ import annotations

import importlib
import inspect
import math
import time
import traceback
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from spillway.errors import CheckpointError, SpecError
from spillway.runtime import Preempted
from spillway.workloads.sweeping.limits import Spent
from spillway.workloads.sweeping.trial import Trial, run_function

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spillway.runtime import Session
    from spillway.workloads.shared_study import SharedTrial
    from spillway.workloads.spread_search import SpreadSearch


class _Stopped(BaseException):
    """The others are better: leave the user's code. No `Exception`, so that code which catches those does not go on."""


class _Cut(_Stopped):
    """The sweep has had enough."""


class LeasedTrial(Trial):
    """What the user's code calls. It saves when the session wants to, and at once when the capacity will be taken back."""

    def __init__(
        self,
        session: Session,
        shared: SharedTrial,
        search: SpreadSearch,
        *,
        number: int,
        why_over: Callable[[], str | None] | None,
    ) -> None:
        checkpoint = session.restore()
        super().__init__(
            number=number,
            dataset=search.dataset,
            max_steps=search.max_steps,
            seed=search.seed,
            metric=search.metric,
            send=self._take,
            restored=checkpoint.files(session.scratch / "restored") if checkpoint else None,
            folder=session.scratch,
        )
        self._session = session
        self._shared = shared
        self._may_save = False
        self._why_over = why_over
        row = shared.row
        self._spent_before = Spent(
            seconds=row.seconds, marginal_usd=row.marginal_usd, effective_usd=row.effective_usd
        )
        self._began = time.monotonic()

    def charge(self) -> None:
        """Write down what the trial has taken."""
        submission = self._session.submission
        spent = self._spent_before.and_lease(submission, time.monotonic() - self._began)
        self._shared.charge(spent, pool=submission.pool)

    @override
    def should_checkpoint(self) -> bool:
        """Return whether it is time to give a checkpoint with the next report."""
        self._may_save = True
        return self._session.should_checkpoint()

    def _take(self, report: dict[str, Any], checkpoint: Path | None) -> None:
        step, value = int(report["step"]), float(report[self._metric])
        if not math.isfinite(value):
            raise ArithmeticError(f"its {self._metric} is no number at step {step}")
        self._session.progress(step, self.max_steps, **{self._metric: value})
        goes_on = self._shared.report(step, value)
        if checkpoint is not None:
            self._session.checkpoint(step, files=checkpoint)
        elif self._session.preempted:
            self._leave_unless_it_may_save()
        if not goes_on:
            raise _Stopped
        if self._why_over is not None:
            self.charge()
            if step < self.max_steps and self._why_over() is not None:
                raise _Cut

    def _leave_unless_it_may_save(self) -> None:
        """Let code that asks when to save come once more to where it asks."""
        if not self._may_save:
            raise Preempted(self._session.heartbeat.checkpoint_step)
        self._may_save = False


def run_trial(
    session: Session,
    shared: SharedTrial,
    search: SpreadSearch,
    *,
    number: int,
    why_over: Callable[[], str | None] | None,
) -> None:
    """Run the trial until it ends or is stopped, and tell the study how.

    Args:
        session: The attempt it runs in.
        shared: The trial, as the study knows it.
        search: What is searched.
        number: Of the trial.
        why_over: Tells, after each report, why the whole sweep ends now; None where nothing can end it.

    Raises:
        SpecError: There is no such trainable.
        CheckpointError: The store cannot be read or written, or a newer lease owns the task.
        Preempted: The capacity is taken back.
    """
    function = _load(search.trainable)
    trial = LeasedTrial(session, shared, search, number=number, why_over=why_over)
    try:
        run_function(function, shared.row.params, trial)
    except _Cut:
        shared.cut()
    except _Stopped:
        trial.charge()
        shared.end()
    except CheckpointError:  # the store's troubles are not the trial's
        raise
    except Exception as error:  # the top of the user's code
        if session.preempted:  # what breaks after the notice breaks because of it
            raise
        trial.charge()
        shared.end("".join(traceback.format_exception(error)))
    else:
        trial.charge()
        shared.end()


def _load(trainable: str) -> Callable[..., object]:
    module, colon, name = trainable.partition(":")
    try:
        function = getattr(importlib.import_module(module), name) if colon else None
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"trainable {trainable!r} is not there ({error}): give package.module:function of something installed"
        ) from error
    if not callable(function) or inspect.isclass(function):
        raise SpecError(
            f"trainable {trainable!r} is no function: give package.module:function; a class is for a sweep in one lease"
        )
    return function  # type: ignore[no-any-return]  # its type is whatever the user wrote
