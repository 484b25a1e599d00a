"""The ledger as the rest of Spillway sees it: one call, one transaction."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from sqlalchemy import insert

from spillway.errors import LedgerError
from spillway.ledger import history, leases, reports, schema, storage, waiting
from spillway.ledger.database import Database
from spillway.ledger.migrate import check_is_current, migrate
from spillway.model import MonthlyMinimum, PrepaidHours
from spillway.runtime.stored import stretches

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from pydantic import JsonValue

    from spillway.ledger.leases import LeaseRequest
    from spillway.ledger.reports import LeaseReport
    from spillway.ledger.storage import StorageCharge
    from spillway.ledger.waiting import LineMember, WaitingTask
    from spillway.model import (
        CostRecord,
        Heartbeat,
        JobEvent,
        Lease,
        Move,
        Placement,
        Pool,
        PoolDay,
        PoolUsage,
        RoomAnswer,
        SlotInterval,
        SpeedSample,
        TaskKey,
        TaskSpec,
        Unplaced,
    )


class Ledger:
    """The books: who holds what capacity, since when, why, and what it cost.

    Every call is one short transaction, committed when it returns and without effect when it raises. Calls are safe from
    any thread and any process. They block while another process writes the same rows, for a minute at most.
    Failures are `LedgerError`; `LedgerUnavailableError` says that the database could not be asked.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, url: str) -> Self:
        """Return the ledger at `url`, made or migrated first if need be.

        Args:
            url: `sqlite:////absolute/path/ledger.db` or `postgresql+psycopg://user:password@host/database`.

        Raises:
            LedgerError: The URL is wrong, the folder cannot be written, or the ledger is newer than this code.
            LedgerUnavailableError: The database did not answer.
        """
        return cls._open(url, migrate)

    @classmethod
    def open_to_read(cls, url: str) -> Self:
        """Return the ledger at `url` as it is, for those who only read: it is neither made nor migrated.

        Raises:
            LedgerError: The URL is wrong, there is no ledger, or it has another schema than this code.
            LedgerUnavailableError: The database did not answer.
        """
        return cls._open(url, check_is_current)

    @classmethod
    def _open(cls, url: str, prepare: Callable[[Database], None]) -> Self:
        database = Database(url)
        try:
            prepare(database)
        except LedgerError:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        """Close idle connections. The ledger can still be used, and opens new ones."""
        self._database.close()

    # ---- a lease's life ---------------------------------------------------------------------------------------

    def grant(self, request: LeaseRequest, *, slots: int, now: datetime) -> Lease:
        """Lease as many of the pool's `slots` to the task of `request` as it has nodes, all or none of them.

        The placement is kept with all its reasons.

        Raises:
            PoolFullError: Other leases hold too many of the `slots`.
            LedgerError: The task already holds an open lease; the message names it.
            SpecError: The arguments are not JSON.
        """
        with self._database.write() as connection:
            return leases.grant(connection, request, slots=slots, now=now)

    def record(
        self,
        key: str,
        event: JobEvent,
        *,
        now: datetime,
        exit_code: int | None = None,
        detail: str = "",
        provider_id: str | None = None,
        move: Move | None = None,
    ) -> Lease:
        """Move the lease by what its provider reported; repeats and late reports are harmless.

        A lease in a final state stays as it is, but takes a `provider_id`, so that a job which started after its
        lease was cancelled can still be found and stopped. A job that is asked to move is promised its slots of the
        pool that `move` names, which `usage` tells of until its lease is over, and `move` is kept with all its reasons.
        """
        with self._database.write() as connection:
            return leases.record(
                connection,
                key,
                event,
                now=now,
                exit_code=exit_code,
                detail=detail,
                provider_id=provider_id,
                move_to=move,
            )

    def end(self, key: str, *, now: datetime) -> Lease:
        """Give the capacity back, with cost records that cover exactly the time it was held. Repeats safely.

        Raises:
            LedgerError: The lease is not in a final state.
        """
        with self._database.write() as connection:
            return leases.end(connection, key, now=now)

    def adopt(self, key: str, *, owner_try: int, owner_clear: int) -> Lease | None:
        """Make a try answer for the open lease; None when it has ended, or a newer try answers for it already."""
        with self._database.write() as connection:
            return leases.adopt(connection, key, owner_try=owner_try, owner_clear=owner_clear)

    def cancel(self, key: str, *, owner_try: int | None, now: datetime, detail: str) -> bool:
        """Mark the lease cancelled; return whether this call did.

        It does not when the job is over, or when `owner_try` is given and another try answers for the lease.
        """
        with self._database.write() as connection:
            return leases.cancel(connection, key, owner_try=owner_try, now=now, detail=detail)

    def note_refusal(self, pool: str, *, now: datetime) -> None:
        """Remember that the provider had no room for a lease of `pool`, so that it cools down."""
        with self._database.write() as connection:
            connection.execute(insert(schema.refusal), {"pool": pool, "refused_at": now})

    def note_waiting(
        self, task: TaskKey, unplaced: Unplaced, *, until: datetime, now: datetime
    ) -> None:
        """Keep that the task waits and why, until it is leased something, or has not asked again long after `until`."""
        with self._database.write() as connection:
            waiting.note(connection, task, unplaced, until=until, now=now)

    def forget_waiting(self, task: TaskKey) -> None:
        """Forget that the task waits."""
        with self._database.write() as connection:
            waiting.forget(connection, task)

    def waiting(
        self,
        *,
        now: datetime,
        dag_id: str | None = None,
        run_id: str | None = None,
        overdue: timedelta = waiting.OVERDUE,
        most: int | None = None,
    ) -> Sequence[WaitingTask]:
        """Return the tasks of a DAG, of a run or of everything that hold nothing and wait, the longest first.

        Args:
            now: The moment of asking.
            dag_id: Of which DAG; of all unless given.
            run_id: Of which run; of all unless given.
            overdue: How long after it was to ask again a task is thought to wait no longer.
            most: How many to return at the most.
        """
        with self._database.read() as connection:
            return waiting.tasks(
                connection, now=now, dag_id=dag_id, run_id=run_id, overdue=overdue, most=most
            )

    def line(self, *, now: datetime, overdue: timedelta, most: int) -> Sequence[LineMember]:
        """Return the tasks with a deadline that wait for room or a better price, but plan on no slots, the longest first.

        They are those of the `most` that have waited the longest, and were to ask again no longer than `overdue` ago.
        """
        with self._database.read() as connection:
            return waiting.line(connection, now=now, overdue=overdue, most=most)

    # ---- what is held -----------------------------------------------------------------------------------------

    def lease(self, key: str) -> Lease:
        """Return the lease.

        Raises:
            LedgerError: There is none.
        """
        with self._database.read() as connection:
            found = leases.find(connection, schema.lease.c.key == key)
        if not found:
            raise leases.unknown(key)
        return found[0]

    def leases(self, keys: Collection[str]) -> Mapping[str, Lease]:
        """Return the leases `keys` by key, by one query; those that there are not are left out."""
        with self._database.read() as connection:
            return {lease.key: lease for lease in leases.of_keys(connection, keys)}

    def tasks_with_deadline(self, keys: Collection[str]) -> Mapping[str, TaskSpec]:
        """Return the tasks that have a deadline of the leases `keys`, as they were placed, by the lease's key."""
        with self._database.read() as connection:
            return dict(leases.tasks_with_deadline(connection, keys))

    def placement(self, key: str) -> Placement:
        """Return the decision that the lease came from, with the reason for every offer passed over.

        Raises:
            LedgerError: There is no such lease.
        """
        with self._database.read() as connection:
            return leases.placement(connection, key)

    def move(self, key: str) -> Move | None:
        """Return the decision that the job of the lease go on elsewhere; None where it was not asked to."""
        with self._database.read() as connection:
            return leases.move_of(connection, key)

    def open_lease(self, task: TaskKey) -> Lease | None:
        """Return the lease that the task holds now, or None."""
        with self._database.read() as connection:
            found = leases.find(connection, leases.of_task(task), schema.is_open)
        return found[0] if found else None

    def open_leases(self, pool: str | None = None) -> Sequence[Lease]:
        """Return the leases held now, of one pool or of all, oldest first."""
        of_pool = () if pool is None else (schema.lease.c.pool == pool,)
        with self._database.read() as connection:
            return leases.find(connection, schema.is_open, *of_pool)

    def attempts(self, task: TaskKey) -> Sequence[Lease]:
        """Return every lease the task ever had, first to last."""
        with self._database.read() as connection:
            return leases.find(connection, leases.of_task(task))

    # ---- reports ----------------------------------------------------------------------------------------------

    def usage(
        self, pools: Iterable[Pool], *, now: datetime, cool_down: timedelta
    ) -> Mapping[str, PoolUsage]:
        """Return how each pool is used at `now`, by name.

        A pool cools down for `cool_down` after its provider took capacity back or had no room. The hours of the month are
        those of pools that owe by the month, of a period those of pools whose hours are prepaid: nobody asks for others.
        """
        pools = list(pools)
        by_month = [pool.name for pool in pools if isinstance(pool.commitment, MonthlyMinimum)]
        with self._database.read() as connection:
            used = dict(
                reports.usage(
                    connection,
                    [pool.name for pool in pools],
                    by_month=by_month,
                    now=now,
                    cool_down=cool_down,
                )
            )
            for pool in pools:
                if isinstance(pool.commitment, PrepaidHours):
                    since = min(pool.commitment.starts_at, now)
                    total = history.slot_hours(connection, pool.name, since=since, now=now)
                    used[pool.name] = replace(
                        used[pool.name], period_slot_hours=round(Decimal(total), 6)
                    )
        return used

    def pool_days(
        self, pools: Iterable[Pool], *, since: datetime, now: datetime
    ) -> Mapping[str, Sequence[PoolDay]]:
        """Return what was seen of each pool in `[since, now)`, by name and day, the oldest day first."""
        with self._database.read() as connection:
            return history.pool_days(
                connection, [pool.name for pool in pools], since=since, now=now
            )

    def last_launches(self, pools: Iterable[Pool]) -> Mapping[str, datetime]:
        """Return when the newest lease on each of `pools` was seen to start at about its public price of now, by name.

        Pools on which none was, or at another price, are left out.
        """
        prices = {pool.name: pool.list_usd_per_hour for pool in pools}
        with self._database.read() as connection:
            return history.last_launches(connection, prices)

    def room_answers(
        self, pools: Iterable[str], *, since: datetime
    ) -> Mapping[str, Sequence[RoomAnswer]]:
        """Return what each of `pools` answered after `since`, the newest of it at least, by name and in time."""
        with self._database.read() as connection:
            return history.room_answers(connection, list(pools), since=since)

    def note_speed(self, key: str, sample: SpeedSample) -> None:
        """Keep how fast the lease worked; a later sample takes the place of an earlier one.

        Raises:
            LedgerError: There is no such lease.
        """
        with self._database.write() as connection:
            found = leases.find(connection, schema.lease.c.key == key)
            if not found:
                raise leases.unknown(key)
            history.note_speed(connection, found[0].token, sample)

    def speeds(self, workload: str, *, since: datetime, limit: int = 500) -> Sequence[SpeedSample]:
        """Return how fast leases of `workload` worked, the newest `limit`, the oldest first."""
        with self._database.read() as connection:
            return history.speeds(connection, workload, since=since, limit=limit)

    def slot_intervals(
        self, pool: str, *, since: datetime, now: datetime
    ) -> Sequence[SlotInterval]:
        """Return when slots of `pool` were held from `since` on, and until when those held now are expected to be."""
        with self._database.read() as connection:
            return history.slot_intervals(connection, pool, since=since, now=now)

    def belief(self, pools: str) -> JsonValue:
        """Return what `believe` kept last about the set of pools called `pools`, or None."""
        with self._database.read() as connection:
            return history.belief(connection, pools)

    def believe(self, pools: str, document: JsonValue, *, now: datetime) -> None:
        """Keep what is believed of a set of pools now, unless something newer is kept already."""
        with self._database.write() as connection:
            history.believe(connection, pools, document, now=now)

    def runs(
        self,
        *,
        now: datetime,
        dag_id: str | None = None,
        run_id: str | None = None,
        limit: int = 1000,
    ) -> Sequence[LeaseReport]:
        """Return the leases of a DAG, of a run or of everything, newest first, with their costs up to `now`."""
        with self._database.read() as connection:
            return reports.runs(connection, dag_id=dag_id, run_id=run_id, now=now, limit=limit)

    def note_storage(
        self, key: str, *, gib: float, since: datetime, usd_per_gib_month: Decimal
    ) -> None:
        """Write down what the checkpoints of the lease's task take from `since` on; 0 GiB ends it. Repeats safely.

        Raises:
            LedgerError: There is no such lease.
        """
        with self._database.write() as connection:
            found = leases.find(connection, schema.lease.c.key == key)
            if not found:
                raise leases.unknown(key)
            storage.note(connection, found[0], gib=gib, since=since, price=usd_per_gib_month)

    def note_stored(self, key: str, said: Heartbeat, *, usd_per_gib_month: Decimal) -> None:
        """Write down what the lease's last heartbeat says of storage; nothing where it says nothing. Repeats safely.

        Raises:
            LedgerError: There is no such lease.
        """
        for since, gib in stretches(said):
            self.note_storage(key, gib=gib, since=since, usd_per_gib_month=usd_per_gib_month)

    def storage_charges(
        self, *, now: datetime, dag_id: str | None = None, run_id: str | None = None
    ) -> Sequence[StorageCharge]:
        """Return what keeping checkpoints cost up to `now`, of a DAG, of a run or of everything, by task and in time."""
        with self._database.read() as connection:
            return storage.charges(connection, now=now, dag_id=dag_id, run_id=run_id)

    def added_to_bill(self, keys: Collection[str]) -> Decimal:
        """Return what the leases `keys` have added to the bill, in US dollars; those that are open add nothing yet."""
        with self._database.read() as connection:
            return reports.added_to_bill(connection, keys)

    def cost_records(self, lease_key: str) -> Sequence[CostRecord]:
        """Return what the lease was charged, first period first; nothing while it is open."""
        with self._database.read() as connection:
            return reports.cost_records(connection, lease_key)
