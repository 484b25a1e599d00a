"""Tasks that hold nothing and wait: since when, until when, and why; a row a task, gone once it is leased something."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    insert,
    select,
)

from spillway.ledger import schema
from spillway.ledger.database import lock
from spillway.model import TaskKey, TaskSpec, Unplaced
from spillway.model.codec import decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

OVERDUE: Final = timedelta(minutes=10)
"""How long after the time at which it was to ask again a task is still taken to wait; nobody tells of those that died."""

_waiting = schema.waiting.c
_BY_AGE = (_waiting.since, _waiting.dag_id, _waiting.task_id, _waiting.map_index)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LineMember:
    """A task that waits: whose it is, and what was to be placed."""

    key: TaskKey
    task: TaskSpec


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
        .order_by(*_BY_AGE)
        .limit(most)
    )
    return [
        WaitingTask(
            task=_key(row),
            since=row.since,
            asks_again_at=row.asks_again_at,
            unplaced=decode(row.document, Unplaced),
        )
        for row in rows
    ]


def line(
    connection: Connection, *, now: datetime, overdue: timedelta, most: int
) -> Sequence[LineMember]:
    """Return those tasks of the `most` longest waiting that have a deadline and plan on no slots, the longest first."""
    rows = connection.execute(
        select(schema.waiting)
        .where(_waiting.asks_again_at >= now - overdue)
        .order_by(*_BY_AGE)
        .limit(most)
    )
    found = [(_key(row), row.document["task"]) for row in rows if not row.document.get("planned")]
    return [
        LineMember(key=key, task=decode(task, TaskSpec))  # not all of the decision, which is long
        for key, task in found
        if task is not None and task.get("deadline") is not None
    ]


def _key(row: Row[Any]) -> TaskKey:
    return TaskKey(
        dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index
    )


def _of(task: TaskKey) -> ColumnElement[bool]:
    return and_(*(schema.waiting.c[name] == value for name, value in _columns(task).items()))


def _columns(task: TaskKey) -> dict[str, Any]:
    return {
        "dag_id": task.dag_id,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "map_index": task.map_index,
    }
