"""What a training loop holds on to: its last checkpoint, its progress, and when to save the next one."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from spillway.checkpoints import CheckpointName, FolderStore, Found, claim, commit, latest, prune
from spillway.checkpoints.formats import decode_state, encode_state
from spillway.checkpoints.layout import claimed_tokens
from spillway.errors import StoreError
from spillway.model import Heartbeat, Resources, Submission
from spillway.runtime.clock import Clock, SystemClock
from spillway.runtime.exchange import write_heartbeat
from spillway.runtime.signals import Notice

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore

log = logging.getLogger(__name__)

DEFAULT_CHECKPOINT_INTERVAL = timedelta(minutes=10)
"""Used when nobody knows how often the capacity is taken back."""

HEARTBEAT_PERIOD = timedelta(seconds=1)


class Preempted(BaseException):
    """The state is saved and the capacity will be taken back: leave the loop.

    Like `KeyboardInterrupt` it is no `Exception`, so that code which catches those does not go on working.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"preempted after the checkpoint of step {step}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A state as it was saved.

    Attributes:
        step: Steps done when it was taken.
        state: What was given to `Session.checkpoint`.
        metadata: What was given with it.
    """

    step: int
    state: Any
    metadata: dict[str, JsonValue] = field(default_factory=dict)


class Session:
    """One attempt of a task, as the code that does the work sees it.

    Not for use from several threads at once.

    Attributes:
        key: Name of the attempt.
        token: Fencing token of its lease.
        scratch: A folder for this attempt alone; it is gone when the attempt ends.
        checkpoint_interval: Time between checkpoints.
    """

    def __init__(
        self,
        submission: Submission,
        store: ObjectStore,
        *,
        scratch: Path,
        clock: Clock | None = None,
        notice: Notice | None = None,
        keep: int = 2,
    ) -> None:
        self.key = submission.key
        self.token = submission.token
        self.scratch = scratch
        interval = submission.checkpoint_interval
        self.checkpoint_interval = DEFAULT_CHECKPOINT_INTERVAL if interval is None else interval
        self._prefix = submission.prefix
        self._fresh_start = submission.fresh_start
        self._store = store
        self._clock = clock or SystemClock()
        self._notice = notice or Notice()
        self._keep = keep
        self._has_claimed = False
        self._began = self._saved = self._clock.monotonic()
        self._has_progressed = False
        self._restored_step: int | None = None
        self._heartbeat = Heartbeat(token=self.token, written_at=self._clock.now())
        self._next_heartbeat = -math.inf

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
            resources=Resources(),
            store=root.as_uri(),
            prefix="local",
            grace_period=timedelta(0),
            checkpoint_interval=checkpoint_interval,
            fresh_start=fresh_start,
        )
        return cls(submission, store, scratch=scratch, clock=clock, notice=notice)

    @property
    def preempted(self) -> bool:
        """Whether the capacity will be taken back; save what is worth saving and return."""
        return self._notice.received

    @property
    def heartbeat(self) -> Heartbeat:
        """What the session has to say of itself now."""
        return self._heartbeat

    def restore(self) -> Checkpoint | None:
        """Return the newest whole checkpoint of the task, or None when the work begins at its beginning.

        Raises:
            FencedError: A newer lease owns the task.
            StoreError: The store could not be read or written.
        """
        found = latest(self._store, self._prefix) if self._has_claimed else self._claim()
        if found is None:
            log.info("starting from the beginning")
            return None
        step = found.manifest.step
        log.info(
            "going on from the checkpoint of step %d, saved by lease %d", step, found.manifest.token
        )
        self._restored_step = step
        self._tell(step=step, checkpoint_step=step)
        return Checkpoint(
            step=step, state=decode_state(found.parts), metadata=dict(found.manifest.metadata)
        )

    def progress(self, step: int, total: int | None = None, **metrics: float) -> None:
        """Report that `step` steps are done, of `total`; cheap enough for every step."""
        self._note_progress(step)
        numbers = {name: float(value) for name, value in metrics.items()}
        self._tell(
            step=step,
            total_steps=self._heartbeat.total_steps if total is None else total,
            metrics={**self._heartbeat.metrics, **numbers},
        )

    def should_checkpoint(self, step: int | None = None) -> bool:
        """Return whether it is time to save: the interval is over, or the capacity will be taken back."""
        if self.preempted:
            return True
        if step is not None and step == self._heartbeat.checkpoint_step:
            return False
        return self._clock.monotonic() - self._saved >= self.checkpoint_interval.total_seconds()

    def checkpoint(self, step: int, state: object, **metadata: JsonValue) -> None:
        """Save `state` as it is after `step` steps; durable when this returns. A step that is saved is not saved again.

        A state is nested dicts, lists and tuples of numbers, text, bytes, arrays and tensors; `metadata` is JSON to
        remember with it.

        Raises:
            Preempted: It is saved, and the capacity will be taken back.
            FencedError: A newer lease owns the task: stop.
            SpecError: The state has something in it that cannot be saved.
            StoreError: The store could not be written; the checkpoint before still counts.
        """
        if not self._has_claimed:
            self._claim()
        if step != self._heartbeat.checkpoint_step:
            self._commit(step, state, metadata)
        if self.preempted:
            raise Preempted(step)

    def end(self, *, succeeded: bool) -> None:
        """Say how it ended in a last heartbeat; for whatever runs the entry point, not for the entry point."""
        useful = self._since_began() if succeeded else self._heartbeat.useful
        self._tell(useful=useful, at_once=True)

    def _claim(self) -> Found | None:
        found = claim(self._store, self._prefix, self.token, fresh=self._fresh_start)
        self._has_claimed = True
        return found

    def _commit(self, step: int, state: object, metadata: dict[str, JsonValue]) -> None:
        self._note_progress(step)
        name = CheckpointName(token=self.token, step=step)
        manifest = commit(
            self._store,
            self._prefix,
            name,
            encode_state(state),
            now=self._clock.now(),
            metadata=metadata,
        )
        self._saved = self._clock.monotonic()
        log.info("saved the checkpoint of step %d, %d bytes", step, manifest.size)
        prune(self._store, self._prefix, keep=self._keep, verified=name)
        self._tell(step=step, checkpoint_step=step, useful=self._since_began(), at_once=True)

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
        """Take `facts` into the heartbeat, and write it unless the last one was written a moment ago."""
        self._heartbeat = replace(self._heartbeat, written_at=self._clock.now(), **facts)
        if not at_once and self._clock.monotonic() < self._next_heartbeat:
            return
        self._next_heartbeat = self._clock.monotonic() + HEARTBEAT_PERIOD.total_seconds()
        try:
            write_heartbeat(self._store, self._prefix, self._heartbeat)
        except (
            StoreError
        ) as error:  # the work matters more than the report of it; the next one may get through
            log.warning("the heartbeat was not written: %s", error)
