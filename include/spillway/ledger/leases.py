"""The life of a lease in the books: granted once, moved by events, adopted, cancelled, ended with its costs.

Every function runs inside a transaction of its caller, so each is atomic; none of them waits for anything but locks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select, update

from spillway.errors import LedgerError, PoolFullError, SpecError
from spillway.ledger import schema, waiting
from spillway.ledger.accrual import accrue
from spillway.ledger.database import lock
from spillway.model import (
    JobEvent,
    Lease,
    LeaseState,
    Market,
    Move,
    Placement,
    Submission,
    TaskKey,
    TaskSpec,
)
from spillway.model.codec import decode, encode
from spillway.placement.feasible import shape_for
from spillway.placement.lifecycle import is_final, move

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


T = TypeVar("T")

_lease = schema.lease.c
_KEYS_AT_ONCE: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """Everything a lease is made of but its key and its token, which the ledger gives.

    Attributes:
        owner_try: Airflow's try that will answer for it.
        owner_clear: Which life of the task that try belongs to; a larger number after each clear.
        store: URL of the checkpoint store.
        prefix: Where in the store the task's objects are.
        grace_period: Warning time between notice and preemption.
        fresh_start: Whether the job ignores checkpoints of earlier leases.
    """

    task: TaskKey
    spec: TaskSpec
    placement: Placement
    owner_try: int
    owner_clear: int
    store: str
    prefix: str
    grace_period: timedelta
    fresh_start: bool = False


def grant(connection: Connection, request: LeaseRequest, *, slots: int, now: datetime) -> Lease:
    """Write down a new lease, if its task has none and its pool has room for all its nodes: together, or not at all."""
    _check_arguments(request.spec)
    offer = request.placement.offer
    lock(connection, "task", str(request.task))
    lock(connection, "pool", offer.pool)
    _check_no_open_lease(connection, request.task)
    taken = request.spec.nodes
    _check_room(connection, offer.pool, slots, taken=taken)
    number = _last_number(connection, request.task) + 1
    row = connection.execute(
        insert(schema.lease).returning(*schema.lease.c),
        {
            "key": request.task.attempt(number),
            **_task_columns(request.task),
            "number": number,
            "pool": offer.pool,
            "backend": offer.backend,
            "market": offer.market.value,
            "state": LeaseState.GRANTED.value,
            "state_since": now,
            "owner_try": request.owner_try,
            "owner_clear": request.owner_clear,
            "granted_at": now,
            "slots": taken,
            "marginal_usd_per_hour": offer.marginal_usd_per_hour * taken,
            "effective_usd_per_hour": offer.effective_usd_per_hour * taken,
            "list_usd_per_hour": offer.list_usd_per_hour * taken,
            "submission": {},  # it names the token, which exists from here on
            "detail": "",
        },
    ).one()
    waiting.forget(connection, request.task)
    submission = _submission(request, key=row.key, token=row.token)
    document = encode(request.placement)
    connection.execute(insert(schema.placement), {"lease_token": row.token, "document": document})
    return lease_of(_change(connection, row.token, submission=encode(submission)))


def record(
    connection: Connection,
    key: str,
    event: JobEvent,
    *,
    now: datetime,
    exit_code: int | None = None,
    detail: str = "",
    provider_id: str | None = None,
    move_to: Move | None = None,
) -> Lease:
    """Move the lease by `event`; of a lease in a final state only an unknown `provider_id` is still taken."""
    row = _locked(connection, key)
    changes: dict[str, Any] = {}
    if provider_id is not None:
        changes["provider_id"] = provider_id
    before = LeaseState(row.state)
    after = move(before, event)
    if not is_final(before):
        changes["exit_code"] = row.exit_code if exit_code is None else exit_code
        changes["detail"] = _storable(detail) or row.detail
        if after is not before:
            changes |= {"state": after.value, "state_since": now}
            if after is not LeaseState.MOVED:  # then it is on its way, until the lease ends
                changes["moving_to"] = None if move_to is None else move_to.to
            if move_to is not None:
                document = encode(move_to)
                connection.execute(
                    insert(schema.move), {"lease_token": row.token, "document": document}
                )
        if after is LeaseState.RUNNING and row.started_at is None:
            changes["started_at"] = now
    return lease_of(_change(connection, row.token, **changes) if changes else row)


def end(connection: Connection, key: str, *, now: datetime) -> Lease:
    """Give the capacity back in the books, and charge for exactly the time it was held."""
    row = _locked(connection, key)
    if row.ended_at is not None:
        return lease_of(row)
    if not is_final(LeaseState(row.state)):
        raise LedgerError(
            f"lease {key} is {row.state} and cannot end: record how its job ended, or cancel it, first"
        )
    # Two machines' clocks may disagree by more than a short lease lasts; no lease ends before it began.
    ended_at = max(now, row.granted_at)
    lease = lease_of(_change(connection, row.token, ended_at=ended_at))
    costs = accrue(lease, Market(row.market), until=ended_at)
    if costs:
        connection.execute(
            insert(schema.cost_record),
            [
                {
                    "lease_token": lease.token,
                    "pool": cost.pool,
                    "pricing_category": cost.pricing_category.value,
                    "charge_period_start": cost.charge_period_start,
                    "charge_period_end": cost.charge_period_end,
                    "marginal_cost": cost.marginal_cost,
                    "effective_cost": cost.effective_cost,
                    "list_cost": cost.list_cost,
                }
                for cost in costs
            ],
        )
    return lease


def adopt(connection: Connection, key: str, *, owner_try: int, owner_clear: int) -> Lease | None:
    """Make a try answer for the open lease, unless a newer one does."""
    not_newer = or_(
        _lease.owner_clear < owner_clear,
        and_(_lease.owner_clear == owner_clear, _lease.owner_try <= owner_try),
    )
    row = connection.execute(
        update(schema.lease)
        .where(_lease.key == key, schema.is_open, not_newer)
        .values(owner_try=owner_try, owner_clear=owner_clear)
        .returning(*schema.lease.c)
    ).one_or_none()
    return None if row is None else lease_of(row)


def cancel(
    connection: Connection, key: str, *, owner_try: int | None, now: datetime, detail: str
) -> bool:
    """Mark the lease cancelled, if it is neither over nor another try's."""
    row = _locked(connection, key)
    state = LeaseState(row.state)
    if row.ended_at is not None or is_final(state) or owner_try not in (None, row.owner_try):
        return False
    _change(
        connection,
        row.token,
        state=move(state, JobEvent.CANCELLED).value,
        state_since=now,
        detail=_storable(detail),
    )
    return True


def find(connection: Connection, *conditions: ColumnElement[bool]) -> Sequence[Lease]:
    """Return the leases that meet all `conditions`, oldest first."""
    rows = connection.execute(select(schema.lease).where(*conditions).order_by(_lease.token))
    return [lease_of(row) for row in rows]


def of_keys(connection: Connection, keys: Collection[str]) -> Iterator[Lease]:
    """Return those of the leases `keys` that there are."""
    for some in portions(sorted(keys)):
        yield from find(connection, _lease.key.in_(some))


def tasks_with_deadline(
    connection: Connection, keys: Collection[str]
) -> Iterator[tuple[str, TaskSpec]]:
    """Return those of `keys` whose task has a deadline, with the task, without reading whole placements."""
    task = schema.placement.c.document["task"]
    timed = (
        select(_lease.key, task.label("task"))
        .join(schema.placement)
        .where(task["deadline"].as_string().is_not(None))
    )
    for some in portions(sorted(keys)):
        for row in connection.execute(timed.where(_lease.key.in_(some))):
            yield row.key, decode(row.task, TaskSpec)


def placement(connection: Connection, key: str) -> Placement:
    """Return the decision that the lease came from."""
    document = connection.execute(
        select(schema.placement.c.document).join(schema.lease).where(_lease.key == key)
    ).scalar_one_or_none()
    if document is None:
        raise unknown(key)
    return decode(document, Placement)


def move_of(connection: Connection, key: str) -> Move | None:
    """Return the decision that the lease's job go on elsewhere, or None."""
    document = connection.execute(
        select(schema.move.c.document).join(schema.lease).where(_lease.key == key)
    ).scalar_one_or_none()
    return None if document is None else decode(document, Move)


def of_task(task: TaskKey) -> ColumnElement[bool]:
    """Return the condition that a lease is `task`'s."""
    return and_(*(schema.lease.c[name] == value for name, value in _task_columns(task).items()))


def lease_of(row: Row[Any]) -> Lease:
    """Return the lease that a row of the table stands for."""
    return Lease(
        key=row.key,
        task=TaskKey(
            dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index
        ),
        number=row.number,
        token=row.token,
        pool=row.pool,
        backend=row.backend,
        state=LeaseState(row.state),
        owner_try=row.owner_try,
        owner_clear=row.owner_clear,
        granted_at=row.granted_at,
        marginal_usd_per_hour=row.marginal_usd_per_hour,
        effective_usd_per_hour=row.effective_usd_per_hour,
        list_usd_per_hour=row.list_usd_per_hour,
        submission=decode(row.submission, Submission),
        started_at=row.started_at,
        ended_at=row.ended_at,
        exit_code=row.exit_code,
        detail=row.detail,
        provider_id=row.provider_id,
        slots=row.slots,
    )


def unknown(key: str) -> LedgerError:
    """Return the error of asking for a lease that was never granted."""
    return LedgerError(
        f"the ledger has no lease {key}: see that every process uses the same ledger URL"
    )


def portions(keys: Sequence[T]) -> Iterator[Sequence[T]]:
    """Return the keys in as few portions as a query's parameters allow: SQLite takes 32,766, PostgreSQL 65,535."""
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        yield keys[start : start + _KEYS_AT_ONCE]


def _check_no_open_lease(connection: Connection, task: TaskKey) -> None:
    held = connection.execute(select(_lease.key).where(of_task(task), schema.is_open)).scalar()
    if held is not None:
        raise LedgerError(
            f"{task} already holds the open lease {held}: adopt it, or cancel and end it, first"
        )


def _check_room(connection: Connection, pool: str, slots: int, *, taken: int) -> None:
    leased = connection.execute(
        select(func.coalesce(func.sum(_lease.slots), 0)).where(_lease.pool == pool, schema.is_open)
    ).scalar_one()
    if leased + taken > slots:
        needed = "" if taken == 1 else f", and {taken} are needed at once"
        raise PoolFullError(
            f"pool {pool} has {leased} of {slots} slot(s) leased{needed}: take another offer, or wait"
        )


def _last_number(connection: Connection, task: TaskKey) -> int:
    last = connection.execute(select(func.max(_lease.number)).where(of_task(task))).scalar()
    return last or 0


def _submission(request: LeaseRequest, *, key: str, token: int) -> Submission:
    hazard = request.placement.offer.preemptions_per_hour
    return Submission(
        key=key,
        pool=request.placement.offer.pool,
        token=token,
        entry_point=request.spec.entry_point,
        arguments=request.spec.arguments,
        resources=shape_for(request.spec, request.placement.offer.shape),
        store=request.store,
        prefix=request.prefix,
        grace_period=request.grace_period,
        checkpoint_interval=request.placement.estimate.checkpoint_interval,
        fresh_start=request.fresh_start,
        retention=request.spec.retention,
        nodes=request.spec.nodes,
        launcher=request.spec.launcher,
        market=request.placement.offer.market,
        # Any node that is lost stops all of them.
        preemptions_per_hour=None if hazard is None else hazard * request.spec.nodes,
        marginal_usd_per_hour=request.placement.offer.marginal_usd_per_hour * request.spec.nodes,
        effective_usd_per_hour=request.placement.offer.effective_usd_per_hour * request.spec.nodes,
    )


def _task_columns(task: TaskKey) -> dict[str, str | int]:
    return {
        "dag_id": task.dag_id,
        "run_id": task.run_id,
        "task_id": task.task_id,
        "map_index": task.map_index,
    }


def _locked(connection: Connection, key: str) -> Row[Any]:
    """Return the lease's row, which nobody else changes before this transaction ends."""
    row = connection.execute(
        select(schema.lease).where(_lease.key == key).with_for_update()
    ).one_or_none()
    if row is None:
        raise unknown(key)
    return row


def _change(connection: Connection, token: int, **values: Any) -> Row[Any]:
    return connection.execute(
        update(schema.lease)
        .where(_lease.token == token)
        .values(**values)
        .returning(*schema.lease.c)
    ).one()


def _check_arguments(spec: TaskSpec) -> None:
    """Refuse what the codec would have to change: the job gets its arguments from what is stored here."""
    try:
        json.dumps(spec.arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"the arguments of {spec.entry_point} are not JSON: {error}; "
            "give finite numbers, text, lists and objects"
        ) from error


def _storable(text: str) -> str:
    """Return `text` without what a database cannot keep: NUL, and halves of surrogate pairs."""
    whole = text.encode("utf-8", errors="replace").decode("utf-8")
    return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")
