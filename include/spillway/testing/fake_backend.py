"""A provider in memory that can run out of room, be slow, forget, preempt and fail, on demand."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import RLock

from spillway.backends.protocol import Job, LogChunk
from spillway.errors import CapacityError, TransientError
from spillway.model import JobEvent, Observation, SaidEnd, Submission

NAME = "fake"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeJob:
    """What the provider knows of one job.

    Attributes:
        event: What it last did.
    """

    submission: Submission
    event: JobEvent = JobEvent.STARTED
    exit_code: int | None = None
    detail: str = ""
    output: str = ""

    @property
    def is_live(self) -> bool:
        """Whether it uses capacity."""
        return self.event is JobEvent.STARTED


@dataclass(kw_only=True)
class FakeProvider:
    """The provider's side: its machines, and what goes wrong with them. Every `FakeBackend` on it sees the same jobs.

    Attributes:
        slots: How many nodes of jobs run at once.
        has_capacity: Whether it starts jobs at all at the moment.
        is_reachable: Whether it answers; when it does not, every call is a `TransientError`.
        retry_after: What it wants, while it does not answer, to pass before it is asked again; None when it says nothing.
        loses_answers: Whether it does what it is asked, and then the answer is lost on the way.
        ends_at: When its capacity ends; None where it has no end.
        jobs: Every job it remembers, by key.
        calls: Names of the calls it was asked, in order.
    """

    clock: Callable[[], datetime]
    slots: int = 2
    has_capacity: bool = True
    is_reachable: bool = True
    retry_after: timedelta | None = None
    loses_answers: bool = False
    ends_at: datetime | None = None
    jobs: dict[str, FakeJob] = field(default_factory=dict[str, FakeJob])
    calls: list[str] = field(default_factory=list[str])
    lock: RLock = field(default_factory=RLock)

    def succeed(self, key: str) -> None:
        """Let the job end well."""
        self._end(key, JobEvent.SUCCEEDED, 0, "exit code 0")

    def fail(self, key: str, exit_code: int = 1) -> None:
        """Let the job end badly."""
        self._end(key, JobEvent.FAILED, exit_code, f"exit code {exit_code}")

    def preempt(self, key: str) -> None:
        """Take the job's capacity back."""
        self._end(key, JobEvent.PREEMPTED, None, "capacity taken back")

    def forget(self, key: str) -> None:
        """Lose every trace of the job."""
        with self.lock:
            self.jobs.pop(key, None)

    def print(self, key: str, text: str) -> None:
        """Let the job write to its output."""
        with self.lock:
            job = self.jobs[key]
            self.jobs[key] = replace(job, output=job.output + text)

    def cancel(self, key: str) -> None:
        """Stop the job because somebody asked for it; one that is over or not known stays as it is."""
        self._end(key, JobEvent.CANCELLED, None, "released")

    @property
    def live(self) -> list[str]:
        """Keys of the jobs that use capacity, sorted."""
        return sorted(key for key, job in self.jobs.items() if job.is_live)

    @property
    def free_slots(self) -> int:
        """How many more jobs of one node it would start now."""
        taken = sum(job.submission.nodes for job in self.jobs.values() if job.is_live)
        return max(self.slots - taken, 0) if self.has_capacity else 0

    @contextmanager
    def asked(self, call: str, key: str | None = None) -> Generator[None]:
        """Answer one call, alone; fail as the attributes say."""
        with self.lock:
            self.calls.append(call)
            if not self.is_reachable:
                raise TransientError(
                    "the fake provider does not answer",
                    backend=NAME,
                    key=key,
                    retry_after=self.retry_after,
                )
            yield
            if self.loses_answers:
                raise TransientError("the answer was lost", backend=NAME, key=key)

    def _end(self, key: str, event: JobEvent, exit_code: int | None, detail: str) -> None:
        with self.lock:
            job = self.jobs.get(key)
            if job is not None and job.is_live:
                self.jobs[key] = replace(job, event=event, exit_code=exit_code, detail=detail)


class FakeBackend:
    """A backend on a `FakeProvider`; another one on the same provider is another process."""

    def __init__(self, provider: FakeProvider) -> None:
        self.provider = provider

    def submit(self, submission: Submission) -> Job:
        """Start the job, unless the provider has it already."""
        with self.provider.asked("submit", submission.key):
            self._start(submission)
        return Job(key=submission.key)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what the provider says of each job, by key."""
        with self.provider.asked("observe"):
            return {job.key: self._observe(job.key) for job in jobs}

    def release(self, job: Job) -> None:
        """Stop the job and give the capacity back."""
        with self.provider.asked("release", job.key):
            self.provider.cancel(job.key)

    def free_slots(self) -> int:
        """Return how many more jobs the provider would start now."""
        with self.provider.asked("free_slots"):
            return self.provider.free_slots

    def room_said_at(self) -> datetime:
        """Return when the provider said its room: at this moment."""
        return self.provider.clock()

    def said_end(self) -> SaidEnd | None:
        """Return when the provider's capacity ends."""
        ends_at = self.provider.ends_at
        return None if ends_at is None else SaidEnd(at=ends_at, said_at=self.provider.clock())

    def list_jobs(self) -> Sequence[Job]:
        """Return every live job."""
        with self.provider.asked("list_jobs"):
            return [Job(key=key) for key in self.provider.live]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on."""
        with self.provider.asked("read_log", job.key):
            known = self.provider.jobs.get(job.key)
            output = known.output.encode()[offset:] if known else b""
        return LogChunk(text=output.decode(), next_offset=offset + len(output))

    def _start(self, submission: Submission) -> None:
        if submission.key in self.provider.jobs:
            return
        if self.provider.free_slots < submission.nodes:
            raise CapacityError("the fake provider has no room", backend=NAME, key=submission.key)
        self.provider.jobs[submission.key] = FakeJob(submission=submission)

    def _observe(self, key: str) -> Observation:
        now = self.provider.clock()
        job = self.provider.jobs.get(key)
        if job is None:
            return Observation(event=JobEvent.VANISHED, seen_at=now, detail="not known here")
        return Observation(event=job.event, seen_at=now, exit_code=job.exit_code, detail=job.detail)
