"""Tasks that hold nothing and wait: since when, until when, and why; a row a task, gone once it is leased something."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from spillway.ledger import schema
from spillway.ledger.database import lock
from spillway.model import TaskKey, Unplaced
from spillway.model.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

OVERDUE: Final = timedelta(minutes=10)
"""How long after the time at which it was to ask again a task is still taken to wait; nobody tells of those that died."""

_waiting = schema.waiting.c


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingTask:
    """A task that no pool has room for, or that waits for a cheaper one.

    Attributes:
        since: When it was first told to wait.
        asks_again_at: When it was to ask again.
        unplaced: The decision, with the reason for every offer.
    """

    task: TaskKey
    since: datetime
    asks_again_at: datetime
    unplaced: Unplaced


def note(
    connection: Connection, task: TaskKey, unplaced: Unplaced, *, until: datetime, now: datetime
) -> None:
    """Write down that `task` waits, in place of what was written of it; drop what nobody asked about for a day."""
    lock(connection, "waiting", str(task))
    row = connection.execute(
        select(_waiting.since, _waiting.asks_again_at).where(_of(task))
    ).one_or_none()
    is_same = row is not None and now <= row.asks_again_at + OVERDUE
    connection.execute(
        delete(schema.waiting).where(_waiting.asks_again_at < now - timedelta(days=1))
    )
    forget(connection, task)
    connection.execute(
        insert(schema.waiting),
        {
            **_columns(task),
            "since": row.since if row is not None and is_same else now,
            "asks_again_at": until,
            "document": encode(unplaced),
        },
    )


def forget(connection: Connection, task: TaskKey) -> None:
    """Drop what was written of `task`, if anything was."""
    connection.execute(delete(schema.waiting).where(_of(task)))


def tasks(
    connection: Connection,
    *,
    now: datetime,
    dag_id: str | None,
    run_id: str | None,
    overdue: timedelta = OVERDUE,
    most: int | None = None,
) -> Sequence[WaitingTask]:
    """Return the tasks that wait, the longest first, at most `most`; without those that are `overdue` to ask again."""
    wanted = [
        column == value
        for column, value in ((_waiting.dag_id, dag_id), (_waiting.run_id, run_id))
        if value is not None
    ]
    rows = connection.execute(
        select(schema.waiting)
        .where(_waiting.asks_again_at >= now - overdue, *wanted)
        .order_by(_waiting.since, _waiting.dag_id, _waiting.task_id, _waiting.map_index)
        .limit(most)
    )
    return [
        WaitingTask(
            task=TaskKey(
                dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index
            ),
            since=row.since,
            asks_again_at=row.asks_again_at,
            unplaced=decode(row.document, Unplaced),
        )
        for row in rows
    ]


def _of(task: TaskKey) -> ColumnElement[bool]:
    return and_(*(schema.waiting.c[name] == value for name, value in _columns(task).items()))


def _columns(task: TaskKey) -> dict[str, Any]:
    return {
        "dag_id": task.dag_id,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "map_index": task.map_index,
    }
