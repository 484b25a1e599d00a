"""The Slurm backend: jobs of one pool on one cluster, found again by their names."""

from __future__ import annotations

import codecs
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.room import FreeSlots, Kept, Room
from spillway.backends.slots import check_slots
from spillway.backends.slurm import naming, parse
from spillway.backends.slurm.capacity import jobs_that_fit
from spillway.backends.slurm.command_line import CommandLine
from spillway.backends.slurm.options import SlurmOptions, read_options
from spillway.backends.slurm.render import output_path, render
from spillway.backends.slurm.rest import RestClient, is_url
from spillway.backends.slurm.shells import LocalShell, SshShell
from spillway.errors import BackendError
from spillway.model import JobEvent, Observation, Pool, SaidEnd, Submission
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.slurm.client import Client, Marks
    from spillway.backends.slurm.parse import JobRow

MAX_LOG_BYTES: Final = 1 << 20
"""Largest piece of output returned at once."""

SKEW_SECONDS: Final = 600.0
"""How old the word on the cluster's clock may be."""

END_SECONDS: Final = 60.0
"""How old the word on the end of the reservation may be."""

RELEASE_SECONDS: Final = 5.0
"""How long a release waits for the job to be gone; Slurm itself waits for `KillWait`, 30 s by default, and goes on."""


class SlurmBackend:
    """Jobs of one pool, through slurmrestd where the connection's host is a URL, else through Slurm's commands.

    The commands run over SSH where the connection names a host, and on this machine where there is none.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,
        connection: Connection | None = None,
        client: Client | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._options = read_options(pool, home=home, connection=connection)
        self._client = client or _client(connection, self._options)
        self._clock = clock
        self._room = Kept(self._count_room)
        self._end: tuple[float, SaidEnd] | None = None
        self._skew: tuple[float, timedelta] | None = None
        self._lock = threading.Lock()

    def submit(self, submission: Submission) -> Job:
        """Hand the job in, unless the cluster has had it before.

        Two that do this at once may both hand it in: Slurm runs the later one after the first, because of its name, and it
        ends at the first one's mark.

        Raises:
            CapacityError: Every slot of the pool is taken, or a limit of the account or QOS is reached.
            RejectedError: Slurm does not know the partition, or has no node that large.
            AccessError: The user may not use partition, account or QOS, or the credentials are refused.
            TransientError: The cluster could not be asked; call again with the same key.
        """
        key = submission.key
        try:
            request = render(submission, self._options)
            rows = self._rows()
            job_id = self._known(request.name, rows)
            if job_id is None:
                check_slots(self._pool, submission, taken=_slots_taken(rows))
                job_id = self._client.submit(request)
        except BackendError as error:
            error.key = key
            raise
        finally:
            self._room.forget()
        return Job(key=key, provider_id=str(job_id))

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what Slurm says of each job, by key; what the controller forgot is looked up elsewhere, all at once."""
        if not jobs:
            return {}
        names = {job.key: self._name(job) for job in jobs}
        rows = parse.earliest_by_name(self._rows())
        lost = [name for name in names.values() if name not in rows]
        found = self._observe_forgotten(lost) if lost else {}
        now = self._clock()
        return {
            key: found[name] if name in found else self._observation(rows[name], now)
            for key, name in names.items()
        }

    def release(self, job: Job) -> None:
        """Cancel the job, and wait a few seconds for it to be gone.

        Raises:
            TransientError: The cluster could not be asked.
        """
        name = self._name(job)
        ids = [row.job_id for row in self._rows() if row.name == name and row.is_live]
        if ids:
            self._client.cancel(ids)
            self._wait_until_gone(name)
            self._room.forget()

    def free_slots(self) -> int:
        """Return how many more jobs would start now, counted within the last few seconds."""
        return self._room.get().count

    def room_said_at(self) -> datetime | None:
        """Return when Slurm said so; None where only the pool's own jobs are counted."""
        return self._room.get().said_at

    def said_end(self) -> SaidEnd | None:
        """Return when the pool's reservation ends, by our clock, asked within the last minute; None without one."""
        name = self._options.reservation
        if name is None:
            return None
        with self._lock:
            if self._end is None or time.monotonic() - self._end[0] > END_SECONDS:
                end = self._client.reservation_end(name) - self._clock_ahead()
                self._end = (time.monotonic(), SaidEnd(at=end, said_at=self._clock()))
            return self._end[1]

    def list_jobs(self) -> Sequence[Job]:
        """Return every live job of the pool."""
        live = {row.job_id for row in self._rows() if row.is_live}
        if not live:
            return []
        comments = self._client.comments()
        keys = {job_id: naming.key_of(comments.get(job_id, "")) for job_id in sorted(live)}
        return [Job(key=key, provider_id=str(job_id)) for job_id, key in keys.items() if key]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on, whole characters only."""
        path = output_path(self._options.shared_folder(), self._name(job))
        data = self._client.read(path, offset, MAX_LOG_BYTES)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data)
        unfinished, _ = decoder.getstate()
        return LogChunk(text=text, next_offset=offset + len(data) - len(unfinished))

    def _name(self, job: Job) -> str:
        return naming.job_name(self._pool.name, job.key)

    def _rows(self) -> list[JobRow]:
        prefix = naming.pool_prefix(self._pool.name)
        return [row for row in self._client.jobs() if row.name.startswith(prefix)]

    def _known(self, name: str, rows: Iterable[JobRow]) -> int | None:
        """Return the number of the job of this name, wherever there is word of it."""
        earliest = parse.earliest_by_name(rows).get(name)
        if earliest is None:
            earliest = parse.earliest_by_name(self._client.past_jobs([name])).get(name)
        if earliest is not None:
            return earliest.job_id
        mark = self._client.marks([name]).get(name)
        return mark.job_id if mark else None

    def _count_room(self) -> FreeSlots:
        now = self._clock()
        rows = self._rows()
        free = max(self._pool.slots - _slots_taken(rows), 0)
        if self._options.room == "slots" or free == 0:
            return FreeSlots(count=free)
        idle = jobs_that_fit(
            self._client.nodes(),
            self._pool.shape,
            self._options.gres_of(self._pool.shape),
            reserved=self._options.reservation is not None,
        )
        waiting = _slots_taken(row for row in rows if row.state == "PENDING")
        return Room(instances=idle - waiting, asked_at=now).within(free)

    def _observe_forgotten(self, names: Sequence[str]) -> dict[str, Observation]:
        """Return what accounting says of jobs that the controller forgot, else their marks; without either they vanished."""
        now = self._clock()
        try:
            rows = parse.earliest_by_name(self._client.past_jobs(names))
            marks = self._client.marks([name for name in names if not _tells(rows.get(name))])
        except BackendError as error:  # it says nothing of these, and must not hide the others
            return {name: Observation(event=None, seen_at=now, detail=str(error)) for name in names}
        return {
            name: self._observation(rows[name], now)
            if name in rows and (_tells(rows[name]) or name not in marks)
            else _from_marks(marks.get(name), now)
            for name in names
        }

    def _observation(self, row: JobRow, now: datetime) -> Observation:
        limit = self._options.start_within
        there = now if limit is None else now + self._clock_ahead()
        return replace(parse.observation(row, there, start_within=limit), seen_at=now)

    def _clock_ahead(self) -> timedelta:
        """Return how far the cluster's clock, by which jobs are stamped, is ahead of ours; none where it does not say."""
        if self._skew is None or time.monotonic() - self._skew[0] > SKEW_SECONDS:
            try:
                ahead = self._client.clock_ahead()
            except BackendError:  # of no job that is worth an error
                ahead = self._skew[1] if self._skew else timedelta(0)
            self._skew = (time.monotonic(), ahead)
        return self._skew[1]

    def _wait_until_gone(self, name: str) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        while any(row.name == name and row.is_live for row in self._rows()):
            if time.monotonic() > deadline:
                return
            time.sleep(0.2)  # Slurm has no call that waits for an end; until the deadline


def _client(connection: Connection | None, options: SlurmOptions) -> Client:
    if connection is None or not connection.host:
        return CommandLine(LocalShell(), options)
    if is_url(connection.host):
        return RestClient(connection, options)
    return CommandLine(SshShell(connection), options)


def _tells(row: JobRow | None) -> bool:
    """Return whether accounting knows how the job ended."""
    return row is not None and (row.state != "FAILED" or row.exit_code is not None)


def _slots_taken(rows: Iterable[JobRow]) -> int:
    return sum(row.nodes for row in rows if row.is_live)


def _from_marks(marks: Marks | None, now: datetime) -> Observation:
    if marks is None:
        return Observation(event=JobEvent.VANISHED, seen_at=now, detail="not known to Slurm")
    said = f"Slurm has forgotten job {marks.job_id}"
    if marks.exit_code is None:
        return Observation(
            event=JobEvent.VANISHED, seen_at=now, detail=f"{said}, which left no word of its end"
        )
    ends = {0: JobEvent.SUCCEEDED, PREEMPTED: JobEvent.PREEMPTED}
    return Observation(
        event=ends.get(marks.exit_code, JobEvent.FAILED),
        seen_at=now,
        exit_code=marks.exit_code,
        detail=f"{said}, which wrote that it ended with exit code {marks.exit_code}",
    )
