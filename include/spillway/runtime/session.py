"""What a training loop holds on to: its last checkpoint, its progress, and when to save the next one."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from spillway.checkpoints import FolderStore, Found, claim, latest
from spillway.checkpoints.files import Files, write_files
from spillway.checkpoints.formats import Prepared, decode_state, prepare
from spillway.checkpoints.layout import claimed_tokens
from spillway.checkpoints.likeness import check_likeness
from spillway.checkpoints.readers import hold, nothing
from spillway.checkpoints.store import BytesLike, ObjectStore
from spillway.errors import SpecError, StoreError, WrongCheckpointError
from spillway.model import Heartbeat, Manifest, Resources, Submission
from spillway.placement.cadence import UNKNOWN_HAZARD_INTERVAL, Cadence, cadence
from spillway.runtime.clock import Clock, SystemClock
from spillway.runtime.gang.membership import LOOPBACK, Member
from spillway.runtime.notice import Notice
from spillway.runtime.pulse import DirectPulse, Pulse
from spillway.runtime.rate import Rate
from spillway.runtime.saving import Saved, Saver, whole_number

log = logging.getLogger(__name__)

DEFAULT_CHECKPOINT_INTERVAL = UNKNOWN_HAZARD_INTERVAL
"""Used when nobody knows how often the capacity is taken back."""


class Preempted(BaseException):
    """The capacity will be taken back, and what could be saved is: leave the loop.

    Like `KeyboardInterrupt` it is no `Exception`, so that code which catches those does not go on working.

    Attributes:
        step: Step of the last checkpoint; None when there is none.
    """

    def __init__(self, step: int | None) -> None:
        self.step = step
        saved = "before the first checkpoint" if step is None else f"with step {step} saved"
        super().__init__(f"preempted {saved}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A state as it was saved.

    Attributes:
        step: Steps done when it was taken.
        state: What was given to `Session.checkpoint`.
        metadata: What was given with it.
        parts: What its files are made of.
        let_go: Is called once they have been read.
    """

    step: int
    state: Any
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    parts: Mapping[str, BytesLike] = field(default_factory=dict, repr=False)
    let_go: Callable[[], None] = field(default=nothing, repr=False, compare=False)

    def files(self, into: Path | str) -> Path:
        """Write the files that were saved with it into a new or empty folder, and return that.

        They are kept in the store until this has been called, whatever is saved meanwhile. A second call may come too late.

        Raises:
            SpecError: The folder cannot be used.
            CorruptCheckpointError: No files were saved with it, or a piece is not what was written.
            StoreError: The store could not be read.
        """
        written = write_files(self.parts, Path(into))
        self.let_go()
        return written


class Session:
    """One attempt of a task, as the code that does the work sees it.

    Not for use from several threads at once.

    Attributes:
        key: Name of the attempt.
        token: Fencing token of its lease.
        scratch: A folder for this attempt alone; it is gone when the attempt ends.
        gang: Which member of its gang this process is; of a task on one machine, the only one.
    """

    def __init__(
        self,
        submission: Submission,
        store: ObjectStore,
        *,
        scratch: Path,
        clock: Clock | None = None,
        notice: Notice | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.key = submission.key
        self.token = submission.token
        self.scratch = scratch
        self.gang = Member(rank=0, nodes=1, head_address=LOOPBACK)
        self._submission = submission
        self._prefix = submission.prefix
        self._fresh_start = submission.fresh_start
        self._store = store
        self._clock = clock or SystemClock()
        self._notice = notice or Notice(grace_period=submission.grace_period, clock=self._clock)
        self._has_claimed = False
        self._began = self._opened = self._clock.monotonic()
        self._has_progressed = False
        self._restored_step: int | None = None
        self._newest_step: int | None = None  # of this lease's own checkpoints
        self._heartbeat = Heartbeat(token=self.token, written_at=self._clock.now())
        self._pulse = pulse or DirectPulse(store, submission.prefix, clock=self._clock)
        self._pulse.complete_by(self._with_untold)
        self._saver = Saver(
            store, submission, clock=self._clock, tell=self._note_saved, wake=self._pulse.hurry
        )
        self._rate = Rate()
        self._cadence = self._choose_cadence()

    @classmethod
    def local(
        cls,
        folder: Path | str,
        *,
        checkpoint_interval: timedelta | None = None,
        fresh_start: bool = False,
        clock: Clock | None = None,
        notice: Notice | None = None,
    ) -> Session:
        """Return a session without a scheduler: for a notebook, or to run a workload by hand.

        Checkpoints are below `folder`, and the next session on it goes on from them unless `fresh_start`.
        """
        root = Path(folder).resolve()
        store = FolderStore(root)
        scratch = root / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        submission = Submission(
            key="local",
            pool="local",
            token=max(claimed_tokens(store, "local"), default=0) + 1,
            entry_point="local:local",
            arguments={},
            resources=Resources(cpus=len(os.sched_getaffinity(0))),
            store=root.as_uri(),
            prefix="local",
            grace_period=timedelta(0),
            checkpoint_interval=checkpoint_interval,
            fresh_start=fresh_start,
        )
        return cls(submission, store, scratch=scratch, clock=clock, notice=notice)

    @property
    def submission(self) -> Submission:
        """The request that the attempt was started with: pool, resources, price."""
        return self._submission

    @property
    def preempted(self) -> bool:
        """Whether the capacity will be taken back; save what is worth saving and return."""
        return self._notice.received

    @property
    def checkpoint_interval(self) -> timedelta:
        """Time between checkpoints: what was asked for at first, and from then on what saving is seen to cost."""
        return self._cadence.interval

    @property
    def heartbeat(self) -> Heartbeat:
        """What the session has to say of itself now; for any thread."""
        return self._with_untold()

    def restore(self, *, like: object = None, saved_by: str | None = None) -> Checkpoint | None:
        """Return the newest whole checkpoint of the task, or None when the work begins at its beginning.

        Args:
            like: A state as this run would save it, to compare with; None to compare nothing.
            saved_by: Entry point whose checkpoints are welcome besides this task's own, when it has been renamed.

        Raises:
            WrongCheckpointError: The checkpoint is another workload's, or has other keys or shapes than `like`.
            SpecError: It needs a framework that is not installed here.
            FencedError: A newer lease owns the task.
            StoreError: The store could not be read or written.
        """
        self._saver.wait()
        found = self._find()
        is_own = found is not None and found.manifest.token == self.token
        self._newest_step = found.manifest.step if found is not None and is_own else None
        if found is None:
            log.info("starting from the beginning")
            return None
        step = found.manifest.step
        self._check_workload(found.manifest, saved_by)
        state = decode_state(found.parts)
        if like is not None:
            check_likeness(state, like)
        log.info(
            "going on from the checkpoint of step %d, saved by lease %d", step, found.manifest.token
        )
        self._restored_step = step
        self._tell(step=step, checkpoint_step=step)
        return Checkpoint(
            step=step,
            state=state,
            metadata=dict(found.manifest.metadata),
            parts=found.parts.files(),
            let_go=hold(
                self._store, self._prefix, found, token=self.token, gang=self.gang.nodes > 1
            ),
        )

    def progress(self, step: int, total: int | None = None, **metrics: float) -> None:
        """Report that `step` steps are done, of `total`; cheap enough for every step.

        Raises:
            FencedError: A newer lease owns the task: stop.
            StoreError: The last checkpoint could not be written; the one before still counts.
        """
        self._note_progress(step)
        numbers = {name: float(value) for name, value in metrics.items()}
        self._tell(
            step=step,
            total_steps=self._heartbeat.total_steps if total is None else total,
            metrics={**self._heartbeat.metrics, **numbers},
            steps_per_second=self._rate.note(step, self._clock.monotonic()),
        )
        self._saver.collect()

    def should_checkpoint(self, step: int | None = None) -> bool:
        """Return whether it is time to save: the interval is over, or the capacity will or may be taken back.

        Raises what `progress` does.
        """
        self._saver.collect()
        if self.preempted:
            return True
        if step is not None and self._is_saved(step):
            return False
        taken_at, advised_at = self._saver.taken_at, self._notice.advised_at
        if advised_at is not None and (taken_at is None or taken_at < advised_at):
            return True
        last = self._opened if taken_at is None else taken_at
        return self._clock.monotonic() - last >= self.checkpoint_interval.total_seconds()

    def checkpoint(
        self,
        step: int,
        state: object = None,
        *,
        files: Path | str | None = None,
        **metadata: JsonValue,
    ) -> None:
        """Save `state`, and the file or folder `files`, as they are after `step` steps; a step that is saved is not saved again.

        The state is copied when this returns, and the work may go on and change it. It is written beside the work; the next
        call here waits for that, and if it fails, the next call of `progress`, `should_checkpoint` or `checkpoint` says so.
        What is small, what has files, the last of all steps, and what is saved after a notice is durable when this returns.
        Steps count on over epochs and phases: the one with the most is what the next lease goes on from.
        After a notice nothing is begun that could not be finished in time; then the last checkpoint stands.

        A state is nested dicts, lists and tuples of numbers, text, bytes, arrays and tensors; `metadata` is JSON to
        remember with it.

        Raises:
            Preempted: What could be saved is, and the capacity will be taken back.
            FencedError: A newer lease owns the task: stop.
            SpecError: The state or the folder has something in it that cannot be saved, or the step is no number of steps, or
                fewer than this lease has saved.
            StoreError: The store could not be written; the checkpoint before still counts.
        """
        step = whole_number(step)
        if not self._has_claimed:
            self._claim()
        if self.preempted:
            self._save_last(step, state, files, metadata)
            raise Preempted(self._heartbeat.checkpoint_step)
        self._saver.collect()
        if not self._is_saved(step):
            self._save(step, prepare(state), _look_at(files), metadata)
        if step == self._heartbeat.total_steps:
            self._saver.wait()

    def flush(self) -> None:
        """Wait until every checkpoint is durable.

        Raises what `progress` does.
        """
        self._saver.wait()

    def end(self, *, succeeded: bool) -> None:
        """Say how it ended in a last heartbeat; for whatever runs the entry point, not for the entry point.

        Waits for the checkpoint that is being written. Where that fails, and the work has not, it raises what `progress`
        does.
        """
        try:
            self._saver.wait()
        except Exception as error:  # whatever it is, what the work failed of goes before it
            if succeeded:
                raise
            log.warning("the last checkpoint was not saved: %s", error)
        useful = self._since_began() if succeeded else self._heartbeat.useful
        self._heartbeat = replace(self._heartbeat, written_at=self._clock.now(), useful=useful)
        self._pulse.end(self._heartbeat)

    def _find(self) -> Found | None:
        return latest(self._store, self._prefix) if self._has_claimed else self._claim()

    def _claim(self) -> Found | None:
        found = claim(self._store, self._prefix, self.token, fresh=self._fresh_start)
        self._has_claimed = True
        return found

    def _is_saved(self, step: int) -> bool:
        return step in (self._heartbeat.checkpoint_step, self._saver.in_flight)

    def _save(
        self, step: int, state: Prepared, files: Files | None, metadata: dict[str, JsonValue]
    ) -> None:
        self._check_is_newest(step)
        self._note_progress(step)
        metrics = self._heartbeat.metrics
        self._saver.save(step, state, files, metadata=_copy(metadata), metrics=metrics)

    def _check_is_newest(self, step: int) -> None:
        """Refuse what nobody would ever go on from."""
        saved = [one for one in (self._newest_step, self._saver.in_flight) if one is not None]
        if saved and step < max(saved):
            raise SpecError(
                f"step is {step}, and step {max(saved)} is saved already, from which the next lease would go on; count steps"
                " on over epochs and phases"
            )

    def _save_last(
        self, step: int, state: object, files: Path | str | None, metadata: dict[str, JsonValue]
    ) -> None:
        """Save within the grace period what can be, and wait until it is durable."""
        try:
            self._saver.wait()
        except StoreError as error:  # the save that follows stands in for it
            log.warning("trying again after the notice: %s", error)
        if self._is_saved(step):
            return
        prepared, found = prepare(state), _look_at(files)
        if self._fits(prepared.size + (found.size if found else 0)):
            self._save(step, prepared, found, metadata)
            self._saver.wait()

    def _fits(self, size: int) -> bool:
        """Return whether a save that is begun now is likely to be done before the capacity is gone."""
        needed, left = self._saver.expected_write(size), self._notice.seconds_left
        if needed is None or left is None or needed.total_seconds() <= left:
            return True
        log.warning(
            "no checkpoint after the notice: it would take %.3g s and %.3g s are left; that of step %s stands",
            needed.total_seconds(),
            left,
            self._heartbeat.checkpoint_step,
        )
        return False

    def _check_workload(self, manifest: Manifest, saved_by: str | None) -> None:
        there, here = manifest.entry_point, self._submission.entry_point
        if there and there not in (here, saved_by):
            raise WrongCheckpointError(
                f"the checkpoint of step {manifest.step} was saved by {there!r}, and this is {here!r}: ask for a fresh"
                f" start, or call restore(saved_by={there!r}) if it is the same work under a new name"
            )

    def _note_saved(self, saved: Saved) -> None:
        """Tell of a checkpoint that counts, and choose by what it cost when the next one is due."""
        self._newest_step = saved.step
        self._cadence = self._choose_cadence()
        self._heartbeat = saved.added_to(self._heartbeat, began=self._began)
        self._tell(at_once=True)

    def _with_untold(self) -> Heartbeat:
        """Return the heartbeat with a checkpoint that counts since the work last called."""
        # Before the heartbeat, in which it is by the time that it is gone here.
        untold = self._saver.untold
        said = self._heartbeat
        return said if untold is None else untold.added_to(said, began=self._began)

    def _choose_cadence(self) -> Cadence:
        chosen = cadence(
            self._submission.preemptions_per_hour,
            given=self._submission.checkpoint_interval,
            measured=self._saver.cost,
        )
        before = self._heartbeat.checkpoint_interval
        if before is None or abs(chosen.interval - before) > before / 10:
            log.info(
                "a checkpoint every %.3g s: %s; a preemption costs %.3g s of work on average",
                chosen.interval.total_seconds(),
                chosen.reason,
                chosen.expected_loss.total_seconds(),
            )
        self._heartbeat = replace(
            self._heartbeat,
            checkpoint_interval=chosen.interval,
            checkpoint_reason=chosen.reason,
            expected_loss=chosen.expected_loss,
        )
        return chosen

    def _note_progress(self, step: int) -> None:
        is_new = self._restored_step is None or step > self._restored_step
        if self._has_progressed or not is_new:
            return
        self._has_progressed = True
        self._began = self._clock.monotonic()
        self._heartbeat = replace(
            self._heartbeat, first_progress_at=self._clock.now(), first_step=step
        )

    def _since_began(self) -> timedelta:
        return timedelta(seconds=self._clock.monotonic() - self._began)

    def _tell(self, *, at_once: bool = False, **facts: Any) -> None:
        """Take `facts` into the heartbeat; `at_once` when they should not wait."""
        self._heartbeat = replace(self._heartbeat, written_at=self._clock.now(), **facts)
        self._pulse.tell(self._heartbeat, at_once=at_once)


def _copy(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        copied: dict[str, JsonValue] = json.loads(json.dumps(metadata))
    except (TypeError, ValueError) as error:
        raise SpecError(f"what is remembered with a checkpoint has to be JSON: {error}") from error
    return copied


def _look_at(files: Path | str | None) -> Files | None:
    return None if files is None else Files(Path(files))
