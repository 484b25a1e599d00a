"""The backend of Google Cloud Batch: jobs of one pool, found again by names that our keys make."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client

from spillway.backends.google import naming
from spillway.backends.google.access import access, make_client
from spillway.backends.google.batch import parse
from spillway.backends.google.batch.client import BatchClient
from spillway.backends.google.batch.options import read_batch_options
from spillway.backends.google.batch.render import NAME
from spillway.backends.google.capacity import ComputeCapacity, Reservation
from spillway.backends.google.failures import question
from spillway.backends.google.logs import CloudLog
from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.room import SlotCount
from spillway.backends.slots import check_slots
from spillway.errors import BackendError, CapacityError
from spillway.model import JobEvent, Observation, Pool, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.google.batch.options import BatchOptions
    from spillway.backends.google.batch.parse import JobRow
    from spillway.model import SaidEnd

RELEASE_SECONDS: Final = 5.0
"""How long a release waits for the job to be gone; Batch itself takes a minute or two, and goes on."""

_LATE: Final = timedelta(hours=1)
"""How much later than others a job may come to show up in lists."""


class GoogleBatchBackend:
    """Jobs of one pool in one project and region."""

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,  # noqa: ARG002  # nothing is kept on this machine
        connection: Connection | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._options = options = read_batch_options(pool)
        self._access = access(pool.name, options.project, connection)
        self._client = BatchClient(self._access, options)
        self._log = CloudLog(
            make_client(LoggingServiceV2Client, self._access, endpoint=options.logging_endpoint),
            self._access.project,
            backend=NAME,
        )
        self._clock = clock
        self._live_since: datetime | None = None
        self._capacity = ComputeCapacity(
            self._access,
            backend=NAME,
            region=options.region,
            reservation=_reservation(options),
            quotas=options.quotas,
            endpoint=options.compute_endpoint,
            clock=clock,
        )
        self._slots = SlotCount(pool.slots, question()(self._slots_taken), self._capacity.room)

    def submit(self, submission: Submission) -> Job:
        """Start the job, unless Batch has had it before.

        Batch keeps jobs for 60 days after their end, and refuses a second one of the same name; so does our key.

        Raises:
            CapacityError: Every slot of the pool is taken, or a quota is used up.
            RejectedError: Google does not know the project or region, or refuses what is asked for.
            AccessError: A permission is missing, or the credentials are refused.
            TransientError: Google could not be asked; call again with the same key.
        """
        try:
            row = self._known(submission.key) or self._start(submission)
        except BackendError as error:
            error.key = submission.key
            raise
        finally:
            self._slots.forget()
        return Job(key=submission.key, provider_id=row.uid)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what Batch says of each job, by key: by one list, and by name what is not in it."""
        if not jobs:
            return {}
        with question():
            rows = {row.name: row for row in self._recent()}
            names = {job.key: self._name(job.key) for job in jobs}
            found = {
                key: rows[name] if name in rows else self._client.get(name)
                for key, name in names.items()
            }
        return {key: self._observation(row) for key, row in found.items()}

    def release(self, job: Job) -> None:
        """Cancel the job, and wait a few seconds for it to be gone. It is not deleted: how it ended is still to be seen.

        Raises:
            TransientError: Google could not be asked, or did not take it.
        """
        name = self._name(job.key)
        with question():
            row = self._client.get(name)
            if row is None or not row.is_live:
                return
            self._client.cancel(name, naming.request_id(self._pool.name, f"cancel {job.key}"))
            self._wait_until_gone(name)
            self._slots.forget()

    def free_slots(self) -> int:
        """Return how many more jobs would start now: slots not taken, as far as reservation and quotas have room for them."""
        return self._slots.free().count

    def room_said_at(self) -> datetime | None:
        """Return when Compute Engine said so; None where only the pool's own jobs are counted."""
        return self._slots.free().said_at

    def said_end(self) -> SaidEnd | None:
        """Return when the pool's reservation ends, as Compute Engine says; a future reservation ends with the one it made."""
        return self._capacity.room().end

    def list_jobs(self) -> Sequence[Job]:
        """Return every live job of the pool."""
        with question():
            rows = self._recent()
        return [Job(key=row.key, provider_id=row.uid) for row in rows if row.is_live and row.key]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on, out of Cloud Logging."""
        uid = job.provider_id or self._uid(job.key)
        if uid is None:
            return LogChunk(text="", next_offset=offset)
        name = f"projects/{self._access.project}/logs/batch_task_logs"
        with question():
            return self._log.read(f'logName="{name}" AND labels.job_uid="{uid}"', offset)

    def _name(self, key: str) -> str:
        return naming.job_id(self._pool.name, key)

    def _uid(self, key: str) -> str | None:
        with question():
            row = self._client.get(self._name(key))
        return row.uid if row else None

    def _known(self, key: str) -> JobRow | None:
        return self._client.get(self._name(key))

    def _start(self, submission: Submission) -> JobRow:
        check_slots(self._pool, submission, taken=self._slots_taken())
        row = self._client.create(submission) or self._known(submission.key)
        if row is None:
            raise CapacityError(
                f"job {self._name(submission.key)} is being deleted by somebody; another pool may do",
                backend=NAME,
            )
        return row

    def _slots_taken(self) -> int:
        return sum(row.nodes for row in self._recent() if row.is_live)

    def _recent(self) -> list[JobRow]:
        """Return the pool's jobs, back to the oldest one that is live.

        Lists are newest first. The first is read to its end; a later one only down to what was the oldest live job
        before, since what is over does not come back, so calls do not grow with the jobs that have ended.
        """
        rows: list[JobRow] = []
        for row in self._client.jobs(self._pool.name):
            if self._live_since is not None and row.created_at < self._live_since - _LATE:
                break
            rows.append(row)
        if rows:
            live = [row.created_at for row in rows if row.is_live]
            self._live_since = min(live, default=max(row.created_at for row in rows))
        return rows

    def _observation(self, row: JobRow | None) -> Observation:
        now = self._clock()
        if row is None:
            return Observation(event=JobEvent.VANISHED, seen_at=now, detail="not known to Batch")
        if row.needs_tasks:
            try:
                row = replace(row, exit_codes=self._client.task_exit_codes(row.name))
            except (
                BackendError
            ) as error:  # it says nothing of this one, and must not hide the others
                return Observation(event=None, seen_at=now, detail=str(error))
        seen = parse.observation(
            row,
            now + self._client.ahead,
            start_within=self._options.start_within,
            waits_for_capacity=self._options.provisioning == "FLEX_START",
        )
        return replace(seen, seen_at=now)

    def _wait_until_gone(self, name: str) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        while (row := self._client.get(name)) is not None and row.is_live:
            if time.monotonic() > deadline:
                return
            time.sleep(0.3)  # waiting on the operation would poll, too


def _reservation(options: BatchOptions) -> Reservation | None:
    if options.reservation is None or options.reservation == "NO_RESERVATION":
        return None
    return Reservation(name=options.reservation, places=options.zones or (options.region,))
