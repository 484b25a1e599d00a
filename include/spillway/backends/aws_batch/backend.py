"""The AWS Batch backend: jobs of one pool in one queue, found again by their names."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.aws import naming
from spillway.backends.aws.capacity import CapacitySource
from spillway.backends.aws.logs import LogReader
from spillway.backends.aws.session import Aws
from spillway.backends.aws_batch import parse, render
from spillway.backends.aws_batch.options import read_options
from spillway.backends.aws_batch.queue import Queue
from spillway.backends.aws_batch.render import NAME
from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.room import SlotCount
from spillway.backends.slots import check_slots
from spillway.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.aws.pace import Pace
    from spillway.backends.aws_batch.parse import JobRow
    from spillway.model import Observation, Pool, SaidEnd, Submission

RELEASE_SECONDS: Final = 5.0
"""How long a release waits for the job to be gone; Batch gives it 30 s between SIGTERM and SIGKILL, and goes on."""

RELEASED: Final = "released by spillway"
SECOND: Final = "spillway: another job runs this attempt"


class AwsBatchBackend:
    """Jobs of one pool, in the queue of its market."""

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,  # noqa: ARG002  # nothing is kept on this machine
        connection: Connection | None = None,
        pace: Pace | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._options = options = read_options(pool)
        self._aws = aws = Aws(
            f"pool {pool.name!r}", connection, backend=NAME, region=options.region, pace=pace
        )
        self._queue = Queue(aws, options.queue_of(pool.market))
        self._logs = LogReader(aws, options.log_group)
        self._capacity = CapacitySource(
            aws,
            market=pool.market,
            instance_types=[options.instance_type] if options.instance_type else [],
            min_score=options.min_placement_score,
            reservations=options.capacity_reservations,
            clock=clock,
        )
        self._clock = clock
        self._slots = SlotCount(
            pool.slots, self._slots_taken, lambda: self._capacity.room(pool.slots)
        )
        self._streams: dict[str, str] = {}

    def submit(self, submission: Submission) -> Job:
        """Start the job, unless the queue has had one of its name.

        `SubmitJob` has no token that makes it safe to repeat. Two that submit a key at once may both start a job; both
        then see two of the name, keep the older, and stop the younger. Should Batch show one of them late, the younger
        has a job of the same fencing token, and is stopped at the key's release.

        Raises:
            CapacityError: Every slot of the pool is taken, or the job has several nodes on a spot queue.
            RejectedError: Batch does not know queue or role, or the submission is too large.
            AccessError: A permission is missing, a quota is reached, or the credentials are refused.
            TransientError: Batch could not be asked; call again with the same key.
        """
        key = submission.key
        name = naming.job_name(self._pool.name, key)
        try:
            known = parse.earliest(self._queue.named(name))
            job_id = known.job_id if known is not None else self._start(submission, name)
        except BackendError as error:
            error.key = key
            raise
        finally:
            self._slots.forget()
        return Job(key=key, provider_id=job_id)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what Batch says of each job, by key: one call for a hundred, and one more for gangs that ended."""
        if not jobs:
            return {}
        ids = {job.key: self._id(job) for job in jobs}
        details = self._queue.describe(job_id for job_id in ids.values() if job_id)
        nodes = self._main_nodes(details)
        now = self._clock()
        seen = {
            key: parse.observation(
                details.get(job_id or ""),
                now + self._aws.ahead,
                node=nodes.get(parse.main_node(job_id or "")),
                start_within=self._options.start_within,
            )
            for key, job_id in ids.items()
        }
        return {key: replace(one, seen_at=now) for key, one in seen.items()}

    def release(self, job: Job) -> None:
        """Stop the job, and wait a few seconds for it to be gone.

        Raises:
            TransientError: Batch could not be asked.
        """
        rows = self._queue.named(naming.job_name(self._pool.name, job.key))
        ids = {row.job_id for row in rows if row.is_live}
        if job.provider_id and all(row.job_id != job.provider_id for row in rows):
            ids.add(job.provider_id)
        if ids:
            self._queue.terminate(sorted(ids), RELEASED)
            self._wait_until_gone(ids)
            self._slots.forget()

    def free_slots(self) -> int:
        """Return how many more jobs would start now: slots not taken, as far as EC2 says that there is room for them."""
        return self._slots.free().count

    def room_said_at(self) -> datetime | None:
        """Return when AWS said so; None where only the pool's own jobs are counted."""
        return self._slots.free().said_at

    def said_end(self) -> SaidEnd | None:
        """Return when the reservation or capacity block behind the pool ends, as EC2 says."""
        return self._capacity.room(self._pool.slots).end

    def list_jobs(self) -> Sequence[Job]:
        """Return every live job of the pool."""
        details = self._queue.describe(row.job_id for row in self._live())
        keys = {job_id: naming.key_of(parse.tags_of(one)) for job_id, one in details.items()}
        return [Job(key=key, provider_id=job_id) for job_id, key in keys.items() if key]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on; a gang's is that of its main node."""
        stream = self._stream(job)
        if stream is None:
            return LogChunk(text="", next_offset=offset)
        return self._logs.read(stream, offset)

    def _slots_taken(self) -> int:
        return sum(row.nodes for row in self._live())

    def _start(self, submission: Submission, name: str) -> str:
        check_slots(self._pool, submission, taken=self._slots_taken())
        wanted = render.definition(submission, self._options)
        request = render.job(submission, self._options, wanted["jobDefinitionName"])
        request["jobDefinition"] = self._queue.definition(wanted)
        started = self._queue.submit(request)
        return self._keep_the_older(name, started)

    def _keep_the_older(self, name: str, started: str) -> str:
        rows = self._queue.named(name)
        first = parse.earliest(rows)
        if first is None or len(rows) == 1:
            return started
        seconds = [row.job_id for row in rows if row is not first and row.is_live]
        self._queue.terminate(seconds, SECOND)
        return first.job_id

    def _live(self) -> list[JobRow]:
        return self._queue.live(naming.pool_prefix(self._pool.name))

    def _id(self, job: Job) -> str | None:
        if job.provider_id is not None:
            return job.provider_id
        found = parse.earliest(self._queue.named(naming.job_name(self._pool.name, job.key)))
        return found.job_id if found is not None else None

    def _main_nodes(self, details: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return what Batch says of the main nodes of gangs that failed; a gang itself has no exit code."""
        ended = [
            parse.main_node(job_id)
            for job_id, one in details.items()
            if parse.is_gang(one) and one.get("status") == "FAILED"
        ]
        return self._queue.describe(ended) if ended else {}

    def _stream(self, job: Job) -> str | None:
        job_id = self._id(job)
        if job_id is None or job_id in self._streams:
            return self._streams.get(job_id or "")
        detail = self._queue.describe([job_id]).get(job_id)
        if detail is not None and parse.is_gang(detail):
            main = parse.main_node(job_id)
            detail = self._queue.describe([main]).get(main)
        stream = parse.log_stream(detail)
        if stream is not None:
            self._streams[job_id] = stream
        return stream

    def _wait_until_gone(self, job_ids: Iterable[str]) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        pause = 0.1
        while any(
            one.get("status") in parse.LIVE for one in self._queue.describe(job_ids).values()
        ):
            if time.monotonic() > deadline:
                return
            time.sleep(pause)  # Batch has no call that waits for an end; until the deadline
            pause *= 2
