"""What a way to talk to Slurm offers; the REST API and the commands are the two there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from spillway.backends.slurm.capacity import NodeRoom
    from spillway.backends.slurm.parse import JobRow
    from spillway.backends.slurm.render import JobRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What a job has left in the folder that nodes share.

    Attributes:
        job_id: Slurm's number of the job that began.
        exit_code: How it ended; None when it did not get to say so.
    """

    job_id: int
    exit_code: int | None = None


class Client(Protocol):
    """One cluster, as one user of it. Failures are `BackendError`; nothing is cached."""

    def submit(self, request: JobRequest) -> int:
        """Hand the job in, and return Slurm's number of it."""
        ...

    def jobs(self) -> Sequence[JobRow]:
        """Return the jobs that the controller remembers, in one call."""
        ...

    def comments(self) -> Mapping[int, str]:
        """Return the comments of those jobs, by Slurm's number."""
        ...

    def past_jobs(self, names: Sequence[str]) -> Sequence[JobRow]:
        """Return what accounting knows of jobs of these names; nothing where a cluster keeps none."""
        ...

    def marks(self, names: Sequence[str]) -> Mapping[str, Marks]:
        """Return what jobs of these names left in the shared folder; nothing where it cannot be read from here."""
        ...

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Cancel the jobs; one that is over, or not there, is no error."""
        ...

    def nodes(self) -> Sequence[NodeRoom]:
        """Return what the partition's nodes have to give."""
        ...

    def reservation_end(self, name: str) -> datetime:
        """Return when the reservation ends, by the cluster's clock.

        Raises:
            RejectedError: There is none of this name, or it has ended.
        """
        ...

    def clock_ahead(self) -> timedelta:
        """Return how far the cluster's clock is ahead of ours; zero for a few seconds, which may be the way."""
        ...

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes of the file from `offset` on; none when it is not there."""
        ...
