"""What leases have shown of pools and jobs: losses per slot hour, hours used, and how fast work went."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    case,
    delete,
    extract,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite

from spillway.ledger import schema
from spillway.model import (
    LeaseState,
    Placement,
    PoolDay,
    RoomAnswer,
    SlotInterval,
    SpeedSample,
)
from spillway.model.codec import decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

_lease = schema.lease.c
_speed = schema.speed_sample.c
_belief = schema.pool_belief.c
_refusal = schema.refusal.c
_ANSWERS = 500

SAME_PRICE: Final = Decimal("0.05")
"""How far a price may have gone from that of a launch, as a part of it, for the launch to speak for it."""

_LOST = (LeaseState.PREEMPTED.value, LeaseState.VANISHED.value)


def pool_days(
    connection: Connection, pools: Sequence[str], *, since: datetime, now: datetime
) -> Mapping[str, Sequence[PoolDay]]:
    """Return what was seen of each of `pools` in `[since, now)`, a day at a time, the oldest first."""
    day = case((schema.is_open, _day_of(connection, literal(now, schema.UtcDateTime))),
               else_=_day_of(connection, _lease.ended_at))  # fmt: skip
    rows = connection.execute(
        select(
            _lease.pool,
            day.label("day"),
            func.sum(held_slot_hours(connection, since, now)).label("hours"),
            func.count().filter(_lease.state.in_(_LOST)).label("losses"),
        )
        .where(_lease.pool.in_(pools), or_(schema.is_open, _lease.ended_at > since))
        .group_by(_lease.pool, day)
        .order_by(day)
    )
    found: dict[str, list[PoolDay]] = defaultdict(list)
    for row in rows:
        seen = PoolDay(
            day=date.fromisoformat(str(row.day)), slot_hours=float(row.hours), losses=row.losses
        )
        found[row.pool].append(seen)
    return {pool: tuple(found[pool]) for pool in pools}


def slot_hours(connection: Connection, pool: str, *, since: datetime, now: datetime) -> float:
    """Return the hours for which slots of `pool` were held in `[since, now)`."""
    total = connection.execute(
        select(func.sum(held_slot_hours(connection, since, now))).where(
            _lease.pool == pool, or_(schema.is_open, _lease.ended_at > since)
        )
    ).scalar()
    return float(total or 0)


def held_slot_hours(connection: Connection, first: datetime, last: datetime) -> ColumnElement[Any]:
    """Return the hours for which all slots of a lease were held in `[first, last)`, added up."""
    return _held_hours(connection, first, last) * _lease.slots


def _held_hours(connection: Connection, first: datetime, last: datetime) -> ColumnElement[Any]:
    """Return the hours a lease was held in `[first, last)`; to the millisecond, for forecasts and not for bills."""
    begin, end = literal(first, schema.UtcDateTime), literal(last, schema.UtcDateTime)
    start = case(
        (_lease.granted_at < begin, begin), (_lease.granted_at > end, end), else_=_lease.granted_at
    )
    stop = case((or_(schema.is_open, _lease.ended_at > end), end), else_=_lease.ended_at)
    if connection.dialect.name == "postgresql":
        return extract("epoch", stop - start) / 3600
    return (func.julianday(stop) - func.julianday(start)) * 24


def slot_intervals(
    connection: Connection, pool: str, *, since: datetime, now: datetime
) -> Sequence[SlotInterval]:
    """Return when slots of `pool` were held from `since` on, and until when those held now are expected to be."""
    rows = connection.execute(
        select(_lease.granted_at, _lease.ended_at, _lease.slots, schema.placement.c.document)
        .join(schema.placement)
        .where(_lease.pool == pool, or_(schema.is_open, _lease.ended_at > since))
        .order_by(_lease.token)
    )
    return [
        SlotInterval(
            start=row.granted_at,
            end=row.ended_at or _expected_end(row.granted_at, decode(row.document, Placement), now),
            slots=row.slots,
            is_open=row.ended_at is None,
        )
        for row in rows
    ]


def _expected_end(granted_at: datetime, placed: Placement, now: datetime) -> datetime:
    """Return when an open lease is expected to end; one that is overdue takes a tenth more of what it has taken."""
    return max(granted_at + placed.estimate.leased, now + (now - granted_at) / 10)


def last_launches(connection: Connection, prices: Mapping[str, Decimal]) -> Mapping[str, datetime]:
    """Return when the newest lease on each pool was seen to start, where that was at about its price of `prices`.

    What was launched at another price says nothing of this one, and nothing proves a price of nothing.
    """
    newest = (
        select(func.max(_lease.token))
        .where(_lease.pool.in_(list(prices)), _lease.started_at.is_not(None))
        .group_by(_lease.pool)
    )
    rows = connection.execute(
        select(_lease.pool, _lease.started_at, _lease.list_usd_per_hour, _lease.slots).where(
            _lease.token.in_(newest)
        )
    )
    return {
        row.pool: row.started_at
        for row in rows
        if _is_about(row.list_usd_per_hour / row.slots, prices[row.pool])
    }


def _is_about(launched_at: Decimal, asked: Decimal) -> bool:
    return asked > 0 and abs(launched_at - asked) <= SAME_PRICE * asked


def room_answers(
    connection: Connection, pools: Sequence[str], *, since: datetime
) -> Mapping[str, Sequence[RoomAnswer]]:
    """Return when leases on each of `pools` started, were refused or taken back after `since`, in time.

    One that was never seen to run was refused, late: a provider may have let it wait until that was for too long.
    """
    is_taken_back = _lease.state == LeaseState.PREEMPTED.value
    is_recent = or_(schema.is_open, _lease.ended_at > since)
    asked = union_all(
        select(_refusal.pool, _refusal.refused_at.label("at"), literal(0).label("had_room")).where(
            _refusal.pool.in_(pools), _refusal.refused_at > since
        ),
        select(_lease.pool, _lease.state_since, literal(0)).where(
            _lease.pool.in_(pools), is_taken_back, _lease.state_since > since
        ),
        select(_lease.pool, _lease.started_at, literal(1)).where(
            _lease.pool.in_(pools), is_recent, _lease.started_at > since
        ),
    ).subquery()
    newest = select(asked).order_by(asked.c.at.desc()).limit(_ANSWERS * len(pools))
    found: dict[str, list[RoomAnswer]] = {pool: [] for pool in pools}
    for row in reversed(connection.execute(newest).all()):
        found[row.pool].append(RoomAnswer(at=row.at, had_room=bool(row.had_room)))
    return found


def note_speed(connection: Connection, token: int, sample: SpeedSample) -> None:
    """Keep how fast a lease worked, in place of what was kept of it before."""
    connection.execute(delete(schema.speed_sample).where(_speed.lease_token == token))
    connection.execute(
        insert(schema.speed_sample),
        {
            "lease_token": token,
            "workload": sample.workload,
            "accelerator": sample.accelerator,
            "accelerator_count": sample.accelerator_count,
            "accelerator_fraction": sample.accelerator_fraction,
            "speed": sample.speed,
            "hours": sample.hours,
            "measured_at": sample.measured_at,
        },
    )


def speeds(
    connection: Connection, workload: str, *, since: datetime, limit: int
) -> Sequence[SpeedSample]:
    """Return the newest samples of `workload`, at most `limit`, the oldest first."""
    rows = connection.execute(
        select(schema.speed_sample)
        .where(_speed.workload == workload, _speed.measured_at > since)
        .order_by(_speed.measured_at.desc(), _speed.lease_token.desc())
        .limit(limit)
    ).all()
    return [
        SpeedSample(
            workload=row.workload,
            accelerator=row.accelerator,
            accelerator_count=row.accelerator_count,
            accelerator_fraction=row.accelerator_fraction,
            speed=row.speed,
            hours=row.hours,
            measured_at=row.measured_at.astimezone(UTC),
        )
        for row in reversed(rows)
    ]


def _day_of(connection: Connection, instant: ColumnElement[Any]) -> ColumnElement[Any]:
    if connection.dialect.name == "postgresql":
        return func.date(func.timezone("UTC", instant))
    return func.date(instant)


def belief(connection: Connection, pools: str) -> JsonValue:
    """Return what is believed of the set of pools called `pools`, or None."""
    document: JsonValue = connection.execute(_BELIEF, {"name": pools}).scalar()
    return document


def believe(connection: Connection, pools: str, document: JsonValue, *, now: datetime) -> None:
    """Keep a belief, in place of an older one."""
    connection.execute(
        _BELIEVE[connection.dialect.name], {"pools": pools, "seen_at": now, "document": document}
    )


def _believe(insert_or_update: Any) -> Any:
    new = insert_or_update(schema.pool_belief)
    return new.on_conflict_do_update(
        index_elements=[_belief.pools],
        set_={"seen_at": new.excluded.seen_at, "document": new.excluded.document},
        where=_belief.seen_at < new.excluded.seen_at,
    )


# Made once, as every look at a pool asks and tells: making a statement takes longer than running it.
_BELIEF: Final = select(_belief.document).where(_belief.pools == bindparam("name"))
_BELIEVE: Final = {
    "sqlite": _believe(sqlite.insert),
    "postgresql": _believe(postgresql.insert),
}
