"""The Ray backend: jobs of one pool on one cluster, found again by their submission ids."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.ray_jobs import naming, parse
from spillway.backends.ray_jobs.capacity import jobs_that_fit, rooms
from spillway.backends.ray_jobs.client import JobsClient
from spillway.backends.ray_jobs.failures import NAME
from spillway.backends.ray_jobs.options import read_options
from spillway.backends.ray_jobs.package import pack
from spillway.backends.ray_jobs.render import render
from spillway.backends.room import FreeSlots, Kept, Room
from spillway.backends.slots import check_slots
from spillway.errors import BackendError, RejectedError, SpecError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.ray_jobs.parse import JobRow
    from spillway.model import Observation, Pool, Submission

MAX_LOG_BYTES: Final = 1 << 20
"""Largest piece of output returned at once."""

RELEASE_SECONDS: Final = 5.0
"""How long a release waits for the job to be gone; Ray itself waits for the grace period, and goes on."""


class RayBackend:
    """Jobs of one pool, through the Jobs API of the cluster that the connection names."""

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,  # noqa: ARG002  # nothing is kept on this machine
        connection: Connection | None = None,
        client: JobsClient | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        release_seconds: float = RELEASE_SECONDS,
    ) -> None:
        if connection is None and client is None:
            raise SpecError(
                f"pool {pool.name!r} needs `connection:`, with the host of the cluster's dashboard and its token"
            )
        self._pool = pool
        self._options = read_options(pool)
        self._client = client or JobsClient(connection or Connection())
        self._clock = clock
        self._release_seconds = release_seconds
        self._room = Kept(self._count_room)
        self._output = ("", b"")

    def submit(self, submission: Submission) -> Job:
        """Hand the job in, unless the cluster has had it before.

        Of two that do this at once, Ray refuses the later one, which then finds the first one's job.

        Raises:
            CapacityError: Every slot of the pool is taken.
            RejectedError: The cluster has another version than it has to, or refuses the request.
            AccessError: The token is not accepted.
            TransientError: The cluster could not be asked; call again with the same key.
        """
        try:
            return self._submit(submission)
        except BackendError as error:
            error.key = submission.key
            raise
        finally:
            self._room.forget()

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what Ray says of each job, by key."""
        names = {job.key: self._name(job) for job in jobs}
        rows = self._rows_of(list(names.values()))
        now, limit = self._clock(), self._options.start_within
        there = now + self._client.ahead
        return {
            key: replace(parse.observation(rows.get(name), there, start_within=limit), seen_at=now)
            for key, name in names.items()
        }

    def release(self, job: Job) -> None:
        """Stop the job, and wait a few seconds for it to be gone.

        One that still waits for room is stopped at the moment it gets some: Ray has no other way.

        Raises:
            TransientError: The cluster could not be asked.
        """
        name = self._name(job)
        row = self._client.job(name)
        if row is not None and row.is_live:
            self._client.stop(name)
            self._wait_until_gone(name)
            self._room.forget()

    def free_slots(self) -> int:
        """Return how many more jobs would start now, counted within the last few seconds."""
        return self._room.get().count

    def room_said_at(self) -> datetime | None:
        """Return when Ray said so; None where only the pool's own jobs are counted."""
        return self._room.get().said_at

    def list_jobs(self) -> Sequence[Job]:
        """Return every live job of the pool."""
        live = [row for row in self._pool_rows() if row.is_live]
        return [
            Job(key=str(row.metadata[naming.KEY]), provider_id=row.submission_id) for row in live
        ]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on, whole characters only."""
        data = self._output_of(self._name(job), offset + MAX_LOG_BYTES)
        piece = data[offset : offset + MAX_LOG_BYTES]
        text = piece.decode("utf-8", "ignore")  # what is cut at the end comes with the next piece
        return LogChunk(text=text, next_offset=offset + len(text.encode()))

    def _output_of(self, name: str, size: int) -> bytes:
        """Return the job's output, at least its first `size` bytes if it has as many.

        Ray sends all of it each time, so what was not shown yet is kept for the next piece.
        """
        kept_name, data = self._output
        if kept_name != name or len(data) < size:
            data = self._client.output(name).encode("utf-8", "replace")
        self._output = (name, data) if len(data) > size else ("", b"")
        return data

    def _submit(self, submission: Submission) -> Job:
        name = naming.submission_id(self._pool.name, submission.key)
        job = Job(key=submission.key, provider_id=name)
        rows = self._pool_rows()
        if any(row.submission_id == name for row in rows):
            return job
        request = render(
            submission, self._options, working_dir=None
        )  # refused before anything is sent
        self._check_versions()
        check_slots(self._pool, submission, taken=_slots_taken(rows))
        code = self._send_code()
        if code is not None:
            request = render(submission, self._options, working_dir=code)
        try:
            self._client.submit(request)
        except (TransientError, RejectedError):
            if self._client.job(name) is None:
                raise
        return job

    def _send_code(self) -> str | None:
        """Return the URI of the code that jobs run with, which the cluster then has."""
        folder = self._options.working_dir
        if folder is None or "://" in folder:
            return folder
        return self._client.send_package(*pack(folder, self._options.excludes))

    def _check_versions(self) -> None:
        options = self._options
        wanted = options.ray_version or _installed_ray()
        ray, python = self._client.versions(python=options.python_version is not None)
        if wanted not in {None, "any", ray}:
            source = "the option ray_version" if options.ray_version else "this machine"
            raise RejectedError(
                f"the cluster of pool {self._pool.name!r} has Ray {ray}, and {source} says {wanted}: install the same on "
                "both, or set the option ray_version to the cluster's, or to `any` where jobs do not care",
                backend=NAME,
            )
        told = options.python_version
        if told is not None and not f"{python}.".startswith(f"{told}."):
            raise RejectedError(
                f"the cluster of pool {self._pool.name!r} has Python {python}, and the option python_version says {told}: "
                "correct it, or use an image with that Python on the cluster",
                backend=NAME,
            )

    def _count_room(self) -> FreeSlots:
        now = self._clock()
        rows = self._pool_rows()
        free = max(self._pool.slots - _slots_taken(rows), 0)
        if self._options.room == "slots" or free == 0:
            return FreeSlots(count=free)
        idle = rooms(self._client.status(), now)
        if idle is None:
            return FreeSlots(count=free)
        waiting = _slots_taken(row for row in rows if row.status == "PENDING")
        fits = jobs_that_fit(idle, self._pool.shape, self._options)
        return Room(instances=fits - waiting, asked_at=now).within(free)

    def _pool_rows(self) -> list[JobRow]:
        pool = self._pool.name
        return [row for row in self._client.jobs() if naming.key_of(row.metadata, pool) is not None]

    def _rows_of(self, names: Sequence[str]) -> dict[str, JobRow]:
        """Return the jobs of these names that Ray knows, in one round trip."""
        match names:
            case []:
                return {}
            case [name]:
                row = self._client.job(name)
                return {} if row is None else {name: row}
            case _:
                return {row.submission_id: row for row in self._client.jobs()}

    def _name(self, job: Job) -> str:
        return naming.submission_id(self._pool.name, job.key)

    def _wait_until_gone(self, name: str) -> None:
        deadline = time.monotonic() + self._release_seconds
        while (row := self._client.job(name)) is not None and row.is_live:
            if time.monotonic() > deadline:
                return
            time.sleep(0.2)  # Ray has no call that waits for an end; until the deadline


def _installed_ray() -> str | None:
    try:
        return version("ray")
    except PackageNotFoundError:
        return None


def _slots_taken(rows: Iterable[JobRow]) -> int:
    return sum(row.nodes for row in rows if row.is_live)
