"""What every provider offers: three calls, and a few more that only some can make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from spillway.model import Observation, Pool, SaidEnd, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The provider's side of a lease.

    Attributes:
        key: The attempt it runs; we chose it before the job was started.
        provider_id: The provider's own name for it; None when the provider finds it by our key.
    """

    key: str
    provider_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Credentials as an Airflow connection holds them; never stored, sent or logged.

    Attributes:
        client: What the provider's own Airflow hook makes of the connection, such as a `boto3.Session`; None for kinds of
            connection that have no such hook.
    """

    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    extra: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    client: object = field(default=None, repr=False)


class Backend(Protocol):
    """One provider, behind three calls.

    Calls block for a few seconds at most and never wait for a job. They are safe to repeat, and to make from a process
    that did not make the earlier ones. Failures are `BackendError`.
    """

    def submit(self, submission: Submission) -> Job:
        """Ask for capacity and start the job on it.

        `submission.key` names the job at the provider. A second call with the same key returns the first call's job,
        so a crash between submitting and recording it starts nothing twice.

        Raises:
            CapacityError: No room now; another offer may do.
            TransientError: Nothing is known to have started; call again with the same key.
        """
        ...

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what the provider says of each job, by key, in one round trip; one it forgot has vanished.

        Raises:
            TransientError: The provider could not be asked; that says nothing of the jobs.
        """
        ...

    def release(self, job: Job) -> None:
        """Stop the job and give the capacity back, maybe a while after the call. Releasing twice is not an error."""
        ...


@runtime_checkable
class SupportsCapacity(Protocol):
    """A provider that says how much room it has."""

    def free_slots(self) -> int:
        """Return how many more jobs of one node the provider would start now."""
        ...


@runtime_checkable
class SupportsDatedCapacity(Protocol):
    """A provider that says itself, at least at times, how much room it has; else `free_slots` counts the pool's own jobs.

    Its word is taken over refusals that came before it, unless they go on; a count of ours is not.
    """

    def room_said_at(self) -> datetime | None:
        """Return when the provider said what `free_slots` returns now; None where that only counts the pool's own jobs."""
        ...


@runtime_checkable
class SupportsEnd(Protocol):
    """A provider whose capacity may end at a known time, as that of a capacity block does."""

    def said_end(self) -> SaidEnd | None:
        """Return when the pool's capacity ends, as the provider said a short while ago; None where it has no end.

        Raises:
            BackendError: It could not be asked.
        """
        ...


@runtime_checkable
class SupportsListing(Protocol):
    """A provider that lists what runs on it, so that reconciliation can find what nobody answers for."""

    def list_jobs(self) -> Sequence[Job]:
        """Return every live job of the pool that carries a key of ours."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Output of a job from one offset on; `next_offset` is where to go on reading."""

    text: str
    next_offset: int


@runtime_checkable
class SupportsLogs(Protocol):
    """A provider whose jobs' output can be read while they run."""

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on; empty when there is nothing new."""
        ...


class BackendFactory(Protocol):
    """Makes the backend of one pool; what a row of the registry names."""

    def __call__(self, pool: Pool, *, home: Path, connection: Connection | None) -> Backend:
        """Return the backend of `pool`; `home` is a folder of this machine where it may keep state.

        Raises:
            SpecError: `pool.options` has a mistake; the message names the option and the remedy.
        """
        ...
