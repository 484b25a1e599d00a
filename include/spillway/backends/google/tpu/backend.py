"""The backend of Cloud TPU: slices of one pool, each for one job, found again by names that our keys make."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from spillway.backends.google import naming
from spillway.backends.google.access import access
from spillway.backends.google.capacity import ComputeCapacity, Reservation
from spillway.backends.google.failures import question
from spillway.backends.google.tpu import parse
from spillway.backends.google.tpu.client import TpuClient
from spillway.backends.google.tpu.options import read_tpu_options
from spillway.backends.google.tpu.render import NAME
from spillway.backends.protocol import Connection, Job
from spillway.backends.room import SlotCount
from spillway.backends.slots import check_slots
from spillway.backends.turns import Turns
from spillway.errors import BackendError, CapacityError
from spillway.model import JobEvent, Market, Observation, Pool, Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.google.tpu.options import TpuOptions
    from spillway.backends.google.tpu.parse import TpuRow
    from spillway.model import SaidEnd

RELEASE_SECONDS: Final = 5.0
"""How long a release waits for the TPU to be gone; Google itself takes a few minutes, and goes on."""


class GoogleTpuBackend:
    """Slices of one pool in one project and zone, by queued resources.

    A TPU is there, and paid for, until it is released, whether its job has ended or not.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,  # noqa: ARG002  # nothing is kept on this machine
        connection: Connection | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._options = options = read_tpu_options(pool)
        who = access(pool.name, options.project, connection)
        self._client = TpuClient(who, options)
        self._turns = Turns()
        self._codes: dict[str, tuple[int, ...]] = {}
        self._clock = clock
        self._capacity = ComputeCapacity(
            who,
            backend=NAME,
            region=options.region,
            reservation=_reservation(pool, options),
            endpoint=options.compute_endpoint,
            clock=clock,
        )
        self._slots = SlotCount(pool.slots, question()(self._hosts_taken), self._capacity.room)

    def submit(self, submission: Submission) -> Job:
        """Ask for a slice that runs the job, unless there is one of this key that was not released.

        Raises:
            CapacityError: Every slot of the pool is taken, a quota is used up, or the key's slice is being deleted.
            RejectedError: The pool has no slice of that size, or Google refuses what is asked for.
            AccessError: A permission is missing, or the credentials are refused.
            TransientError: Google could not be asked; call again with the same key.
        """
        name = self._name(submission.key)
        try:
            rows = self._rows()
            if name in rows and rows[name].state == parse.DELETING:
                raise CapacityError(
                    f"TPU {name} is being deleted by somebody; another pool may do", backend=NAME
                )
            if name not in rows:
                check_slots(self._pool, submission, taken=self._hosts_of(rows.values()))
                self._client.create(submission, spot=self._pool.market is Market.SPOT)
        except BackendError as error:
            error.key = submission.key
            raise
        finally:
            self._slots.forget()
        return Job(key=submission.key, provider_id=name)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what is known of each job, by key.

        One list tells which slices there are. Of those that are active, the hosts of `look_at` are asked whether their job
        has ended, in turn.
        """
        if not jobs:
            return {}
        names = {job.key: self._name(job.key) for job in jobs}
        with question():
            rows = self._rows()
            self._look_at_hosts([rows[name] for name in names.values() if name in rows])
        return {key: self._observation(rows.get(name)) for key, name in names.items()}

    def release(self, job: Job) -> None:
        """Delete the slice, and wait a few seconds for it to be gone.

        Raises:
            TransientError: Google could not be asked, or did not take it.
        """
        name = self._name(job.key)
        with question():
            row = self._client.get(name)
            if row is None:
                return
            if row.state != parse.DELETING:
                self._client.delete(name)
            self._wait_until_gone(name)
            self._slots.forget()

    def free_slots(self) -> int:
        """Return how many more hosts would be granted now: none while Google lets one of the pool's requests wait for TPUs.

        Of TPUs that are not reserved Google says only by granting requests.
        """
        return self._slots.free().count

    def room_said_at(self) -> datetime | None:
        """Return when Compute Engine said so; None where only the pool's own jobs are counted."""
        return self._slots.free().said_at

    def said_end(self) -> SaidEnd | None:
        """Return when the pool's reservation ends, as Compute Engine says; a future reservation ends with the one it made."""
        return self._capacity.room().end

    def list_jobs(self) -> Sequence[Job]:
        """Return every job of the pool whose TPUs are not released: those whose job has ended are paid for as well."""
        with question():
            rows = self._rows()
        return [
            Job(key=row.key, provider_id=row.name)
            for row in rows.values()
            if row.holds_tpus and row.key
        ]

    def _name(self, key: str) -> str:
        return naming.job_id(self._pool.name, key)

    def _rows(self) -> dict[str, TpuRow]:
        """Return the pool's queued resources, by name, and forget what was heard from hosts of those that are gone."""
        rows = {row.name: row for row in self._client.rows(self._pool.name)}
        for name in self._codes.keys() - rows.keys():
            self._codes.pop(name, None)
            self._turns.forget(name)
        return rows

    def _hosts_of(self, rows: Iterable[TpuRow]) -> int:
        return sum(self._options.hosts_of(row.accelerator_type) for row in rows if row.holds_tpus)

    def _hosts_taken(self) -> int:
        """Return how many hosts are not to be had: all of them while a request waits."""
        rows = self._rows().values()
        waits = any(row.state == parse.WAITS for row in rows)
        return self._pool.slots if waits else self._hosts_of(rows)

    def _look_at_hosts(self, rows: Iterable[TpuRow]) -> None:
        """Ask some of the slices that are active, those first that were not asked for longest, until their job has ended."""
        running = [
            row.name
            for row in rows
            if parse.EVENTS.get(row.state) is JobEvent.STARTED and not self._is_over(row)
        ]
        for name in self._turns.take(running, self._options.look_at):
            self._codes[name] = self._client.exit_codes(name)

    def _is_over(self, row: TpuRow) -> bool:
        codes = self._codes.get(row.name, ())
        return parse.is_over(codes, self._options.hosts_of(row.accelerator_type))

    def _observation(self, row: TpuRow | None) -> Observation:
        now = self._clock()
        if row is None:
            return Observation(
                event=JobEvent.VANISHED, seen_at=now, detail="not known to Cloud TPU"
            )
        seen = parse.observation(
            row,
            now + self._client.ahead,
            codes=self._codes.get(row.name, ()),
            hosts=self._options.hosts_of(row.accelerator_type),
            start_within=self._options.start_within,
        )
        return replace(seen, seen_at=now)

    def _wait_until_gone(self, name: str) -> None:
        deadline = time.monotonic() + RELEASE_SECONDS
        while self._client.get(name) is not None:
            if time.monotonic() > deadline:
                return
            time.sleep(0.3)  # waiting on the operation would poll, too


def _reservation(pool: Pool, options: TpuOptions) -> Reservation | None:
    if options.reservation is None:
        return None
    return Reservation(
        name=options.reservation,
        places=(options.zone,),
        unlisted=None,  # those of old are Cloud TPU's alone
        chips=int(pool.shape.accelerator_count) or 1,
    )
