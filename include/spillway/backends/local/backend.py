"""The local backend: start jobs on this machine, look at them, stop them."""

from __future__ import annotations

import codecs
import fcntl
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from spillway.backends.local.folders import JobFolder, Launch, PoolClock, PoolFolder, Status
from spillway.backends.local.options import read_options
from spillway.backends.local.processes import MARK, stop
from spillway.backends.local.spot import has_capacity, taken_back_at
from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.slots import check_slots
from spillway.errors import CapacityError, TransientError
from spillway.model import JobEvent, Observation, Pool, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

NAME = "local"

MAX_LOG_BYTES = 1 << 20
"""Largest piece of output returned at once."""

KILL_LIMIT = timedelta(seconds=2)
RELEASE_LIMIT = timedelta(seconds=6)

KEEP_ENDED = timedelta(days=7)
"""How long the output of a job that ended can be read."""

# A job is the user's code: it has no business with the scheduler's settings and secrets.
_PRIVATE_PREFIXES = ("AIRFLOW_", "_AIRFLOW_", "__AIRFLOW_", "SPILLWAY_")
_PRIVATE = frozenset({"PYTHONDONTWRITEBYTECODE"})


class LocalBackend:
    """Jobs as process groups of this machine, in one pool."""

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,
        connection: Connection | None = None,  # noqa: ARG002  # this machine asks for no credentials
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._options = read_options(pool, home)
        self._folder = PoolFolder(home, pool.name)
        self._clock = clock

    def submit(self, submission: Submission) -> Job:
        """Start the job, unless it has been started before.

        Raises:
            CapacityError: Every slot is taken, or the spot pool has no capacity at the moment.
            TransientError: The pool's folder could not be written.
        """
        job = Job(key=submission.key)
        folder = self._folder.job(submission.key)
        with self._explained(submission.key), self._folder.locked():
            if not _was_started(folder):
                self._check_capacity(submission)
                self._launch(folder, submission)
                self._folder.forget(ended_before=self._clock() - KEEP_ENDED)
        return job

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what is known of each job, by key."""
        with self._explained(None), self._folder.locked():
            return {job.key: self._observe(self._folder.job(job.key)) for job in jobs}

    def release(self, job: Job) -> None:
        """Stop every process of the job; blocks until they are gone, a few seconds at most.

        Raises:
            TransientError: Some of them are still there.
        """
        folder = self._folder.job(job.key)
        with self._explained(job.key):
            if not self._is_live(folder):
                return
            folder.mark_released()
            deadline = time.monotonic() + RELEASE_LIMIT.total_seconds()
            # The supervisor may be about to start the job at this moment; then it sees the mark, and we come round again.
            while not stop(folder.mark, limit=KILL_LIMIT) or self._is_live(folder):
                if time.monotonic() > deadline:
                    raise TransientError(
                        f"processes of {job.key} are still there; release it again",
                        backend=NAME,
                        key=job.key,
                    )
                time.sleep(
                    0.05
                )  # processes of others cannot be waited for, only looked for; until the deadline

    def free_slots(self) -> int:
        """Return how many more jobs of one node would start now."""
        with self._explained(None), self._folder.locked():
            if not self._has_capacity(self._folder.clock(self._clock())):
                return 0
            return max(self._pool.slots - self._slots_taken(), 0)

    def room_said_at(self) -> datetime:
        """Return this moment: the pool is this machine's own, and says itself when it has no capacity."""
        return self._clock()

    def list_jobs(self) -> Sequence[Job]:
        """Return every job that uses capacity."""
        with self._explained(None), self._folder.locked():
            submissions = [folder.read_submission() for folder in self._folder.live_jobs()]
        return [Job(key=submission.key) for submission in submissions if submission is not None]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on, whole characters only."""
        with self._explained(job.key):
            try:
                with self._folder.job(job.key).output.open("rb") as file:
                    file.seek(offset)
                    data = file.read(MAX_LOG_BYTES)
            except FileNotFoundError:
                data = b""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data)
        unfinished, _ = decoder.getstate()
        return LogChunk(text=text, next_offset=offset + len(data) - len(unfinished))

    def _is_live(self, folder: JobFolder) -> bool:
        with self._folder.locked():
            return folder.path.is_dir() and folder.is_live()

    def _slots_taken(self) -> int:
        submissions = [folder.read_submission() for folder in self._folder.live_jobs()]
        return sum(1 if submission is None else submission.nodes for submission in submissions)

    def _check_capacity(self, submission: Submission) -> None:
        check_slots(self._pool, submission, taken=self._slots_taken())
        if not self._has_capacity(self._folder.clock(self._clock())):
            raise CapacityError(
                f"spot pool {self._pool.name!r} has no capacity at the moment",
                backend=NAME,
                key=submission.key,
            )

    def _has_capacity(self, clock: PoolClock) -> bool:
        return has_capacity(
            self._options.interruptions,
            began_at=clock.began_at,
            now=self._clock(),
            launches=clock.launches,
        )

    def _launch(self, folder: JobFolder, submission: Submission) -> None:
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.write(submission)
        folder.write(self._draw_launch(submission.nodes))
        _start_supervisor(folder)

    def _draw_launch(self, nodes: int) -> Launch:
        """Draw when the pool takes the job back: a gang, as soon as it would take any one of its nodes."""
        now = self._clock()
        clock = self._folder.clock(now)
        self._folder.set_clock(replace(clock, launches=clock.launches + nodes))
        ends = [
            taken_back_at(
                self._options.interruptions,
                began_at=clock.began_at,
                launched_at=now,
                ordinal=clock.launches + node,
            )
            for node in range(nodes)
        ]
        return Launch(
            ordinal=clock.launches,
            launched_at=now,
            taken_back_at=min((end for end in ends if end is not None), default=None),
            grace_period=self._pool.grace_period,
            environment=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        folders = [str(path) for path in self._options.python_path]
        inherited = [path for path in (os.environ.get("PYTHONPATH"),) if path]
        python_path = os.pathsep.join([*folders, *inherited])
        return {**self._options.env, **({"PYTHONPATH": python_path} if python_path else {})}

    def _observe(self, folder: JobFolder) -> Observation:
        now = self._clock()
        if not folder.path.is_dir():
            return Observation(event=JobEvent.VANISHED, seen_at=now, detail="never started here")
        live = (
            folder.is_live()
        )  # asked first: a job that ends meanwhile has written its status when it is read
        status = folder.read_status()
        if status is not None:
            return _ended(status, now)
        if live and folder.read_process() is None:
            return Observation(
                event=JobEvent.SUBMITTED, seen_at=now, detail="its supervisor starts"
            )
        if live:
            return Observation(event=JobEvent.STARTED, seen_at=now, detail="its process runs")
        return _ended(self._bury(folder, now), now)

    def _bury(self, folder: JobFolder, now: datetime) -> Status:
        """Return the end of a job that left no word of it, and write it down when nothing can start the job any more."""
        status = Status(
            event=JobEvent.CANCELLED if folder.is_released else JobEvent.VANISHED,
            exit_code=None,
            ended_at=now,
            detail="its processes are gone and left no status",
        )
        if folder.read_process() is not None:
            folder.write(status)
        return status

    @contextmanager
    def _explained(self, key: str | None) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"cannot use {error.filename or self._folder.path}: {error.strerror}; the pool's folder must be"
                " writable and its disk not full",
                backend=NAME,
                key=key,
            ) from error


def _ended(status: Status, now: datetime) -> Observation:
    return Observation(
        event=status.event, seen_at=now, exit_code=status.exit_code, detail=status.detail
    )


def _was_started(folder: JobFolder) -> bool:
    """Return whether the job runs or has run; a launch that died before the job's first process does not count."""
    if not folder.path.is_dir():
        return False
    over = folder.read_status() is not None or folder.is_released
    return over or folder.read_process() is not None or folder.is_live()


def _start_supervisor(folder: JobFolder) -> None:
    """Start a supervisor that belongs to nobody, and hand it the lock that says it lives.

    The lock is taken before the supervisor exists, so there is no moment in which it runs and seems not to; when we die
    before, the lock goes with us. A shell that ends at once is the parent, so we never have to collect it.
    """
    command = [sys.executable, "-m", "spillway.backends.local.supervisor", str(folder.path)]
    alive = folder.open_alive()
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)
        with folder.output.open("ab") as output:
            subprocess.run(  # noqa: S603  # our own supervisor, in the interpreter that we run in
                ["/bin/sh", "-c", '"$@" &', "sh", *command],
                check=True,
                cwd=folder.path,
                env=_clean(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(alive,),
                start_new_session=True,
            )
    finally:
        os.close(alive)


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name not in _PRIVATE and name != MARK and not name.startswith(_PRIVATE_PREFIXES)
    }
