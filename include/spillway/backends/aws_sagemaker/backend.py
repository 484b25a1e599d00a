"""The SageMaker backend: training jobs of one pool, found again by their names."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from spillway.backends.aws import naming
from spillway.backends.aws.capacity import CapacitySource
from spillway.backends.aws.logs import LogReader
from spillway.backends.aws.session import Aws
from spillway.backends.aws_sagemaker import parse, render
from spillway.backends.aws_sagemaker.options import read_options
from spillway.backends.aws_sagemaker.render import NAME
from spillway.backends.aws_sagemaker.training import Training
from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.room import SlotCount
from spillway.backends.slots import check_slots
from spillway.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.aws.pace import Pace
    from spillway.model import Observation, Pool, SaidEnd, Submission

RELEASE_SECONDS: Final = 5.0
"""How long a release waits for the job to be gone; SageMaker gives it 120 s after SIGTERM, and goes on."""

LOG_GROUP: Final = "/aws/sagemaker/TrainingJobs"


class AwsSageMakerBackend:
    """Training jobs of one pool. SageMaker has one job of a name for ever, so that a key never starts two."""

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
        self._training = Training(aws, naming.pool_prefix(pool.name))
        self._logs = LogReader(aws, LOG_GROUP)
        self._capacity = CapacitySource(
            aws,
            market=pool.market,
            instance_types=[options.instance_type.removeprefix("ml.")],
            min_score=options.min_placement_score,
            training_plan=(options.training_plan or "").rpartition("/")[2] or None,
            clock=clock,
        )
        self._clock = clock
        self._slots = SlotCount(
            pool.slots, self._slots_taken, lambda: self._capacity.room(pool.slots)
        )
        self._known: dict[str, tuple[str | None, int]] = {}
        self._streams: dict[str, str] = {}

    def submit(self, submission: Submission) -> Job:
        """Start the job, unless SageMaker has had one of its name.

        Raises:
            CapacityError: Every slot of the pool is taken.
            RejectedError: SageMaker does not know role, image or instance type, or the submission is too large.
            AccessError: A permission is missing, a quota is reached, or the credentials are refused.
            TransientError: SageMaker could not be asked; call again with the same key.
        """
        key = submission.key
        name = self._name(key)
        try:
            if self._training.describe(name) is None:
                check_slots(self._pool, submission, taken=self._slots_taken())
                self._training.create(render.request(submission, self._options))
        except BackendError as error:
            error.key = key
            raise
        finally:
            self._slots.forget()
        return Job(key=key, provider_id=name)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what SageMaker says of each job, by key: one list for all that run, and one call for each that ended."""
        if not jobs:
            return {}
        running = self._training.running()
        names = {job.key: self._name(job.key) for job in jobs}
        found = {
            key: running[name]
            if "SecondaryStatus" in running.get(name, {})
            else self._training.describe(name)
            for key, name in names.items()
        }
        now, limit = self._clock(), self._options.start_within
        there = now + self._aws.ahead
        return {
            key: replace(parse.observation(one, there, start_within=limit), seen_at=now)
            for key, one in found.items()
        }

    def release(self, job: Job) -> None:
        """Stop the job, and wait a few seconds for it to be gone.

        Raises:
            TransientError: SageMaker could not be asked.
        """
        name = self._name(job.key)
        if self._training.is_over(name):
            return
        self._training.stop(name)
        self._wait_until_gone(name)
        self._slots.forget()

    def free_slots(self) -> int:
        """Return how many more jobs would start now: slots not taken, as far as score or training plan allow."""
        return self._slots.free().count

    def room_said_at(self) -> datetime | None:
        """Return when AWS said so; None where only the pool's own jobs are counted."""
        return self._slots.free().said_at

    def said_end(self) -> SaidEnd | None:
        """Return when the training plan of the pool ends, as SageMaker says."""
        return self._capacity.room(self._pool.slots).end

    def list_jobs(self) -> Sequence[Job]:
        """Return every live job of the pool."""
        names = sorted(self._training.running())
        keys = [(name, self._facts(name)[0]) for name in names]
        return [Job(key=key, provider_id=name) for name, key in keys if key]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on; a gang's is that of its first instance."""
        name = self._name(job.key)
        stream = self._streams.get(name) or self._training.log_stream(LOG_GROUP, name)
        if stream is None:
            return LogChunk(text="", next_offset=offset)
        self._streams[name] = stream
        return self._logs.read(stream, offset)

    def _name(self, key: str) -> str:
        return naming.job_name(self._pool.name, key)

    def _slots_taken(self) -> int:
        return sum(self._facts(name)[1] for name in self._training.running())

    def _facts(self, name: str) -> tuple[str | None, int]:
        """Return key and number of instances of a job, which never change, so that each is asked for once."""
        if name not in self._known:
            description = self._training.describe(name)
            if description is None:  # it is shown in one place before it is in the other
                return None, 1
            self._known[name] = parse.key_of(description), parse.nodes_of(description)
        return self._known[name]

    def _wait_until_gone(self, name: str) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        pause = 0.1
        while not self._training.is_over(name):
            if time.monotonic() > deadline:
                return
            time.sleep(pause)  # SageMaker has no call that waits for an end; until the deadline
            pause *= 2
