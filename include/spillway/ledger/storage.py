"""What keeping checkpoints costs: how much a task has stored since when, and the charges that follow from it.

A task's notes are a staircase in time. Each says what its checkpoints take from an instant on, and holds until the next one
of the same task, a later lease's included; the last holds until somebody notes that nothing is stored any more. So storage is
charged between leases and after the last one too, and never twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Row, insert, select

from spillway.ledger import schema
from spillway.ledger.accrual import cost
from spillway.ledger.database import lock
from spillway.model import Lease, TaskKey
from spillway.placement.transfer import STORAGE_USD_PER_GIB_MONTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOURS_A_MONTH: Final = 730
"""Object storage is priced by the month and billed by the hour. Source: Amazon S3 pricing, "GB-Month", average month."""

_storage = schema.storage.c
_lease = schema.lease.c
_TASK = (_lease.dag_id, _lease.run_id, _lease.task_id, _lease.map_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCharge:
    """What keeping a task's checkpoints cost over a time in which they took the same room.

    Attributes:
        lease_key: The lease that said so.
        charge_period_start: First instant charged.
        charge_period_end: First instant not charged.
        gib: What was stored, in GiB.
        gib_hours: The quantity charged.
        cost: In US dollars; marginal, effective and list cost alike.
    """

    task: TaskKey
    lease_key: str
    charge_period_start: datetime
    charge_period_end: datetime
    gib: float
    gib_hours: float
    usd_per_gib_month: Decimal
    cost: Decimal


def usd_per_gib_month(provider: str | None) -> Decimal:
    """Return what `provider` asks for object storage; nothing where it is not in the table, such as a folder of one's own."""
    return STORAGE_USD_PER_GIB_MONTH.get(provider or "", Decimal(0))


def note(
    connection: Connection, lease: Lease, *, gib: float, since: datetime, price: Decimal
) -> None:
    """Write down what the task of `lease` stores from `since` on; what was said first of an instant stands."""
    lock(connection, "storage", str(lease.task))
    said_before = select(_storage.since).where(
        _storage.lease_token == lease.token, _storage.since == since
    )
    if connection.execute(said_before).first() is not None:
        return
    connection.execute(
        insert(schema.storage),
        {
            "lease_token": lease.token,
            "since": since,
            "gib": gib,
            "usd_per_gib_month": price,
        },
    )


def charges(
    connection: Connection, *, now: datetime, dag_id: str | None, run_id: str | None
) -> Sequence[StorageCharge]:
    """Return what storage cost up to `now`, by task and then in time; of a DAG, of a run or of everything."""
    wanted = [
        column == value
        for column, value in ((_lease.dag_id, dag_id), (_lease.run_id, run_id))
        if value is not None
    ]
    rows = connection.execute(_select().where(*wanted, _storage.since < now)).all()
    return [
        charge
        for _, of_task in groupby(rows, key=_task_of)
        for charge in _staircase(list(of_task), now)
    ]


def _staircase(rows: Sequence[Row[Any]], now: datetime) -> Iterator[StorageCharge]:
    ends = [*(row.since for row in rows[1:]), now]
    for row, end in zip(rows, ends, strict=True):
        if row.gib > 0 and row.since < end:
            yield _charge(row, end)


def _charge(row: Row[Any], end: datetime) -> StorageCharge:
    hours = (end - row.since).total_seconds() / 3600
    usd_per_hour = Decimal(row.gib) * row.usd_per_gib_month / HOURS_A_MONTH
    return StorageCharge(
        task=_task_of(row),
        lease_key=row.key,
        charge_period_start=row.since,
        charge_period_end=end,
        gib=row.gib,
        gib_hours=row.gib * hours,
        usd_per_gib_month=row.usd_per_gib_month,
        cost=cost(usd_per_hour, since=row.since, start=row.since, end=end),
    )


def _select() -> Any:
    return (
        select(schema.storage, _lease.key, *_TASK)
        .join(schema.lease)
        .order_by(*_TASK, _storage.since, _storage.lease_token)
    )


def _task_of(row: Row[Any]) -> TaskKey:
    return TaskKey(
        dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index
    )
