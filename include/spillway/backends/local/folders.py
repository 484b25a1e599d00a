"""What is known of a local pool and its jobs, as files, so that any process can find it.

```
pools/{pool}/lock                held while jobs are started, looked at or released
pools/{pool}/clock.json          when the pool's time began, and how many jobs it has launched
pools/{pool}/jobs/{job}/
    submission.json, launch.json   written before the supervisor starts
    alive                          locked by the supervisor for as long as it lives
    process.json                   the job's process, once it runs
    released                       somebody gave the capacity back
    status.json                    how it ended
    output.log, scratch/           of the job itself
```
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from spillway.backends.local.processes import ProcessIdentity, is_alive, marked
from spillway.model import JobEvent, Submission
from spillway.model.codec import decode_json, encode_json

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path
from types import MappingProxyType

T = TypeVar("T")

_READABLE_LENGTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClock:
    """The time of a pool.

    Attributes:
        began_at: When it launched its first job.
        launches: Nodes of jobs launched since.
    """

    began_at: datetime
    launches: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a supervisor has to know.

    Attributes:
        taken_back_at: When the pool takes the capacity back; None for never.
        grace_period: Time from that notice to the end.
        environment: Variables that the job gets beside the supervisor's own.
    """

    ordinal: int
    launched_at: datetime
    taken_back_at: datetime | None
    grace_period: timedelta
    environment: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a job ended.

    Attributes:
        exit_code: Negative for the signal that ended it; None when nobody saw it.
        ended_at: When it was seen to have ended.
    """

    event: JobEvent
    exit_code: int | None
    ended_at: datetime
    detail: str


_FILES: Mapping[type[object], str] = MappingProxyType(
    {
        Submission: "submission.json",
        Launch: "launch.json",
        ProcessIdentity: "process.json",
        Status: "status.json",
    }
)


class JobFolder:
    """The files of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def mark(self) -> str:
        """What every process of the job carries in its environment."""
        return str(self.path)

    @property
    def output(self) -> Path:
        """Where the job's output goes."""
        return self.path / "output.log"

    @property
    def scratch(self) -> Path:
        """A folder that the job may fill."""
        return self.path / "scratch"

    @property
    def submission_path(self) -> Path:
        """Where the submission is."""
        return self.path / _FILES[Submission]

    def read_submission(self) -> Submission | None:
        """Return what was submitted, or None."""
        return read(self.submission_path, Submission)

    def read_launch(self) -> Launch | None:
        """Return how it is to be run, or None when it was not launched."""
        return read(self.path / _FILES[Launch], Launch)

    def read_process(self) -> ProcessIdentity | None:
        """Return the job's first process, or None when it has not been started."""
        return read(self.path / _FILES[ProcessIdentity], ProcessIdentity)

    def read_status(self) -> Status | None:
        """Return how it ended, or None when nobody wrote so."""
        return read(self.path / _FILES[Status], Status)

    def write(self, value: Submission | Launch | ProcessIdentity | Status) -> None:
        """Write one of the job's files, whole or not at all."""
        write(self.path / _FILES[type(value)], value)

    @property
    def is_released(self) -> bool:
        """Whether somebody gave the capacity back."""
        return (self.path / "released").exists()

    def mark_released(self) -> None:
        """Tell the supervisor, and whoever looks later, that the capacity was given back."""
        (self.path / "released").touch()

    def open_alive(self) -> int:
        """Return a new descriptor of the file that the supervisor locks."""
        return os.open(self.path / "alive", os.O_RDWR | os.O_CREAT, 0o666)

    def is_supervised(self) -> bool:
        """Return whether the supervisor lives; only under the pool's lock, for looking means locking for a moment."""
        descriptor = self.open_alive()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def is_live(self) -> bool:
        """Return whether the job uses capacity; only under the pool's lock."""
        if self.read_status() is not None or self.read_launch() is None:
            return False
        if self.is_supervised():
            return True
        process = self.read_process()
        if process is not None and is_alive(process):
            return True
        return any(
            True for _ in marked(self.mark)
        )  # started by a supervisor that died before it could write so


class PoolFolder:
    """The files of one pool."""

    def __init__(self, home: Path, pool: str) -> None:
        self.path = home.resolve() / "pools" / safe_name(pool)

    def job(self, key: str) -> JobFolder:
        """Return the folder of the job `key`, which need not exist."""
        return JobFolder(self.path / "jobs" / safe_name(key))

    def jobs(self) -> Iterator[JobFolder]:
        """Yield the folder of every job there has been."""
        folder = self.path / "jobs"
        if folder.is_dir():
            yield from (JobFolder(path) for path in sorted(folder.iterdir()))

    def forget(self, *, ended_before: datetime) -> None:
        """Remove the folders of jobs that ended long ago; only under the lock."""
        for job in self.jobs():
            status = job.read_status()
            if status is not None and status.ended_at < ended_before:
                shutil.rmtree(job.path, ignore_errors=True)

    def live_jobs(self) -> list[JobFolder]:
        """Return the folders of jobs that use capacity; only under the lock."""
        return [job for job in self.jobs() if job.is_live()]

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep every other process from starting, looking at or releasing jobs of this pool."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def clock(self, now: datetime) -> PoolClock:
        """Return the pool's clock, which begins now if it has launched nothing yet; only under the lock."""
        return read(self.path / "clock.json", PoolClock) or PoolClock(began_at=now)

    def set_clock(self, clock: PoolClock) -> PoolClock:
        """Write the pool's clock; only under the lock."""
        write(self.path / "clock.json", clock)
        return clock


def safe_name(name: str) -> str:
    """Return a folder name for `name`: readable, no two names alike."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[-_READABLE_LENGTH:]
    return f"{readable}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def read(path: Path, kind: type[T]) -> T | None:
    """Return the value in a file, or None when there is none."""
    try:
        return decode_json(path.read_bytes(), kind)
    except FileNotFoundError:
        return None


def write(path: Path, value: object) -> None:
    """Write a value to a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(encode_json(value))
    partial.rename(path)
