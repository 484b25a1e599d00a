"""The backend of Vertex AI: custom jobs of one pool, found again by labels that our keys make."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client

from spillway.backends.google import naming
from spillway.backends.google.access import access, make_client
from spillway.backends.google.capacity import ComputeCapacity, Reservation
from spillway.backends.google.failures import question
from spillway.backends.google.logs import CloudLog
from spillway.backends.google.vertex import parse
from spillway.backends.google.vertex.client import VertexClient
from spillway.backends.google.vertex.options import read_vertex_options
from spillway.backends.google.vertex.render import NAME
from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.room import SlotCount
from spillway.backends.slots import check_slots
from spillway.errors import BackendError
from spillway.model import JobEvent, Observation, Pool, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.google.vertex.parse import VertexRow
    from spillway.model import SaidEnd

RELEASE_SECONDS: Final = 5.0
"""How long a release waits for the job to be gone; Vertex AI itself takes a minute or two, and goes on."""


class GoogleVertexBackend:
    """Custom jobs of one pool in one project and region."""

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,  # noqa: ARG002  # nothing is kept on this machine
        connection: Connection | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._options = options = read_vertex_options(pool)
        who = access(pool.name, options.project, connection)
        self._client = VertexClient(who, options)
        self._log = CloudLog(
            make_client(LoggingServiceV2Client, who, endpoint=options.logging_endpoint),
            who.project,
            backend=NAME,
        )
        self._clock = clock
        self._capacity = ComputeCapacity(
            who,
            backend=NAME,
            region=options.region,
            reservation=Reservation(name=options.reservation, places=(options.region,))
            if options.reservation
            else None,
            endpoint=options.compute_endpoint,
            clock=clock,
        )
        self._slots = SlotCount(pool.slots, question()(self._slots_taken), self._capacity.room)

    def submit(self, submission: Submission) -> Job:
        """Start the job, unless Vertex AI has had it before.

        Two that do this at once may both start one; then both cancel the younger, which has no machines yet.

        Raises:
            CapacityError: Every slot of the pool is taken, or a quota is used up.
            RejectedError: Google does not know the project or region, or refuses what is asked for.
            AccessError: A permission is missing, or the credentials are refused.
            TransientError: Google could not be asked; call again with the same key.
        """
        try:
            rows = self._of_key(submission.key) or self._start(submission)
            for twin in rows[1:]:
                if twin.is_live:
                    self._client.cancel(twin.name)
        except BackendError as error:
            error.key = submission.key
            raise
        finally:
            self._slots.forget()
        return Job(key=submission.key, provider_id=rows[0].number)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what Vertex AI says of each job, by key: by one list of what lives, and by key what is not in it."""
        if not jobs:
            return {}
        with question():
            rows: dict[str, VertexRow] = {}
            for row in sorted(self._client.live(self._pool.name), key=lambda row: row.created_at):
                rows.setdefault(row.key_label, row)
            found = {
                job.key: rows.get(naming.key_value(job.key))
                or next(iter(self._of_key(job.key)), None)
                for job in jobs
            }
        return {key: self._observation(row) for key, row in found.items()}

    def release(self, job: Job) -> None:
        """Cancel the job, and wait a few seconds for it to be gone.

        Raises:
            TransientError: Google could not be asked, or did not take it.
        """
        with question():
            rows = self._of_key(job.key)
            names = [row.name for row in rows if row.is_live]
            if not rows and job.provider_id:  # lists may be behind
                names = [self._client.name_of(job.provider_id)]
            for name in names:
                self._client.cancel(name)
            if names:
                self._wait_until_gone(job.key)
                self._slots.forget()

    def free_slots(self) -> int:
        """Return how many more jobs would start now: slots not taken, as far as the reservation has room for them."""
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
            rows = self._client.live(self._pool.name)
        return [Job(key=row.key, provider_id=row.number) for row in rows if row.key]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on, out of Cloud Logging."""
        with question():
            number = job.provider_id or next((row.number for row in self._of_key(job.key)), None)
            if number is None:
                return LogChunk(text="", next_offset=offset)
            found = f'resource.type="ml_job" AND resource.labels.job_id="{number}"'
            return self._log.read(found, offset)

    def _of_key(self, key: str) -> list[VertexRow]:
        return self._client.of_key(self._pool.name, key)

    def _slots_taken(self) -> int:
        return sum(row.nodes for row in self._client.live(self._pool.name))

    def _start(self, submission: Submission) -> list[VertexRow]:
        """Start the job; return it, and what somebody else started for the same key meanwhile, oldest first."""
        check_slots(self._pool, submission, taken=self._slots_taken())
        own = self._client.create(submission)
        rows = {row.name: row for row in [own, *self._of_key(submission.key)]}
        return sorted(rows.values(), key=lambda row: (row.created_at, row.name))

    def _observation(self, row: VertexRow | None) -> Observation:
        now = self._clock()
        if row is None:
            return Observation(
                event=JobEvent.VANISHED, seen_at=now, detail="not known to Vertex AI"
            )
        there = now + self._client.ahead
        seen = parse.observation(row, there, start_within=self._options.start_within)
        return replace(seen, seen_at=now)

    def _wait_until_gone(self, key: str) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        while any(row.is_live for row in self._of_key(key)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.3)  # there is no call that waits for an end
