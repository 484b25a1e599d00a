"""Saving beside the work: a state is copied at once and written by a thread, one checkpoint at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import index
from statistics import median_low
from typing import TYPE_CHECKING, SupportsIndex

from pydantic import JsonValue

from spillway.checkpoints import CheckpointName, commit, prune
from spillway.checkpoints.checksums import BackgroundChecksums
from spillway.checkpoints.commit import Parts
from spillway.checkpoints.staging import Staging
from spillway.errors import FencedError, SpecError, StoreError
from spillway.placement.cadence import SaveCost
from spillway.runtime.stored import note_stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.checkpoints.files import Files
    from spillway.checkpoints.formats import Prepared
    from spillway.checkpoints.store import ObjectStore
    from spillway.model import Heartbeat, Submission
    from spillway.runtime.clock import Clock

log = logging.getLogger(__name__)

SMALL_BYTES = 1 << 20
"""A state with no more than this in arrays is waited for: it is written before a thread would have paid off."""

PATIENCE = timedelta(seconds=2)
"""How long a small state is waited for; a store that is slower does not hold up the work any longer."""

MOST_STEPS = 10**12 - 1
"""As many as the name of a checkpoint has digits for."""

_REMEMBERED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A state as it was at one step, about to be written.

    Attributes:
        size: Bytes of its arrays and files.
        parts: What it is made of; views of the staging memory.
        checksums: Of those that are copied already.
        taken_at: When the work went on, on the monotonic clock.
        copying: How long it did not.
    """

    step: int
    size: int
    parts: Parts
    checksums: BackgroundChecksums
    taken_at: float
    copying: timedelta
    metadata: Mapping[str, JsonValue]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint that counts.

    Attributes:
        size: Bytes of its parts.
        taken_at: When the work it holds was done, on the monotonic clock.
        counts_since: When it was durable.
        cost: What it cost.
        stored_bytes: What all kept checkpoints take in the store; None when that could not be found out.
    """

    step: int
    size: int
    taken_at: float
    counts_since: datetime
    cost: SaveCost
    stored_bytes: int | None

    def added_to(self, said: Heartbeat, *, began: float) -> Heartbeat:
        """Return `said` with this as the last checkpoint of work that began at `began`; to add it again changes nothing."""
        if self.stored_bytes is not None:
            said = note_stored(said, self.stored_bytes, now=self.counts_since)
        return replace(
            said,
            written_at=max(said.written_at, self.counts_since),
            checkpoint_step=self.step,
            useful=timedelta(seconds=self.taken_at - began),
        )


def whole_number(step: SupportsIndex) -> int:
    """Return `step` if it is a number of steps that a checkpoint can have.

    Raises:
        SpecError: It is not.
    """
    with suppress(TypeError):
        if 0 <= index(step) <= MOST_STEPS:
            return index(step)
    raise SpecError(f"step is {step!r}; give the number of steps done, from 0 to {MOST_STEPS}")


class Saver:
    """Commits the checkpoints of one lease, one after the other, and says of each when it counts.

    `tell` is called with each, always by a thread that calls a method here; which is where a save that failed is reported
    too, once, except that a lease that was replaced is told so each time. `wake` is called by the thread that writes.

    Attributes:
        untold: A checkpoint that counts and was not told of yet, as the work has called nothing since; for any thread.
    """

    def __init__(
        self,
        store: ObjectStore,
        submission: Submission,
        *,
        clock: Clock,
        tell: Callable[[Saved], None],
        wake: Callable[[], None],
    ) -> None:
        self.untold: Saved | None = None
        self._store = store
        self._submission = submission
        self._clock = clock
        self._tell = tell
        self._wake = wake
        self._staging = Staging()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spillway-checkpoint")
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="spillway-checksum")
        self._future: Future[Saved] | None = None
        self._doing: tuple[int, float] | None = None
        self._held_up = timedelta(
            0
        )  # how long what is being written, or was last, held up the work
        self._fenced: FencedError | None = None
        self._written: deque[Saved] = deque(maxlen=_REMEMBERED)

    @property
    def cost(self) -> SaveCost | None:
        """What a save costs, the median of the last few; None before the first."""
        if not self._written:
            return None
        costs = [saved.cost for saved in self._written]
        return SaveCost(
            stall=median_low(cost.stall for cost in costs),
            write=median_low(cost.write for cost in costs),
        )

    @property
    def in_flight(self) -> int | None:
        """Step of the checkpoint that is being written; None when there is none."""
        return None if self._doing is None else self._doing[0]

    @property
    def taken_at(self) -> float | None:
        """When the state was copied that is being written or else the last that counts, on the monotonic clock."""
        if self._doing is not None:
            return self._doing[1]
        return self._written[-1].taken_at if self._written else None

    def expected_write(self, size: int) -> timedelta | None:
        """Return how long it takes until a state of `size` bytes counts, by the slowest of the last few; None when unknown."""
        if not self._written:
            return None
        return max(
            saved.cost.write * max(1.0, size / max(saved.size, 1)) for saved in self._written
        )

    def save(
        self,
        step: int,
        state: Prepared,
        files: Files | None = None,
        *,
        metadata: Mapping[str, JsonValue],
        metrics: Mapping[str, float],
    ) -> None:
        """Copy the state and begin to write it; first wait until the one before counts. Wait until `files` are written.

        Raises:
            FencedError: A newer lease owns the task.
            StoreError: The one before, or this one if it was waited for, could not be written.
        """
        self.wait()
        size = state.size + (files.room if files else 0)
        room = self._staging.room(size)  # may take long, and only once, so it is not counted
        began = self._clock.monotonic()
        written = state.write(room, self._helper)
        parts: Parts = written.parts
        if files:
            parts = files.parts(room[state.size :], beside=parts)
        now = self._clock.monotonic()
        snapshot = Snapshot(
            step=step,
            size=state.size + (files.size if files else 0),
            parts=parts,
            checksums=BackgroundChecksums(written.parts, self._helper, written.digests),
            taken_at=now,
            copying=timedelta(seconds=now - began),
            metadata=metadata,
            metrics=metrics,
        )
        self._doing = step, now
        self._future = self._thread.submit(self._commit, snapshot)
        self._held_up = snapshot.copying
        if files or state.size <= SMALL_BYTES:
            self._wait(None if files else PATIENCE, held_up_since=now)

    def collect(self) -> None:
        """Tell of a checkpoint that counts by now; never waits.

        Raises:
            FencedError: A newer lease owns the task.
            StoreError: It could not be written.
        """
        self._wait(timedelta(0))

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            FencedError: A newer lease owns the task.
            StoreError: What was being written could not be.
        """
        self._wait(None)

    def _wait(self, patience: timedelta | None, *, held_up_since: float | None = None) -> None:
        """Wait for what is being written, and tell of it. `held_up_since` when it is the save that has the work wait."""
        if self._fenced is not None:
            raise FencedError(token=self._fenced.token, newest=self._fenced.newest)
        future = self._future
        if future is None:
            return
        if not future.done():
            wait_for([future], None if patience is None else patience.total_seconds())
        if held_up_since is not None:
            self._held_up += timedelta(seconds=self._clock.monotonic() - held_up_since)
        if future.done():
            self._future = self._doing = None
            self._note(future)

    def _note(self, future: Future[Saved]) -> None:
        try:
            saved = future.result()
        except FencedError as fenced:
            self._fenced = fenced
            raise
        saved = replace(saved, cost=replace(saved.cost, stall=self._held_up))
        self._written.append(saved)
        self._tell(saved)
        self.untold = None  # not earlier: whoever finds it gone finds it told

    def _commit(self, snapshot: Snapshot) -> Saved:
        """Write the snapshot and remove what is not needed any more; on the thread of the saver."""
        name = CheckpointName(token=self._submission.token, step=snapshot.step)
        try:
            manifest = commit(
                self._store,
                self._submission.prefix,
                name,
                snapshot.parts,
                now=self._clock.now(),
                metadata=snapshot.metadata,
                metrics=snapshot.metrics,
                entry_point=self._submission.entry_point,
                checksums=snapshot.checksums,
            )
        except Exception as error:
            log.error("the checkpoint of step %d was not saved: %s", snapshot.step, error)  # noqa: TRY400  # it is raised where the work is
            raise
        write = timedelta(seconds=self._clock.monotonic() - snapshot.taken_at)
        log.info(
            "saved the checkpoint of step %d, %d bytes in %.3g s",
            snapshot.step,
            manifest.size,
            write.total_seconds(),
        )
        saved = Saved(
            step=snapshot.step,
            size=snapshot.size,
            taken_at=snapshot.taken_at,
            counts_since=self._clock.now(),
            cost=SaveCost(stall=snapshot.copying, write=write),
            stored_bytes=self._prune(name),
        )
        self.untold = saved
        self._wake()
        return saved

    def _prune(self, name: CheckpointName) -> int | None:
        try:
            return prune(
                self._store,
                self._submission.prefix,
                keep=self._submission.retention,
                verified=name,
                now=self._clock.now(),
            ).stored_bytes
        except StoreError as error:  # nothing is lost by it, and the next save tries again
            log.warning("old checkpoints were not removed: %s", error)
            return None
