"""What the ledger tells: how full the pools are, what ran where, and what it cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Row,
    bindparam,
    func,
    literal,
    or_,
    select,
    union_all,
)

from spillway.ledger import schema
from spillway.ledger.accrual import cost
from spillway.ledger.history import held_slot_hours
from spillway.ledger.leases import lease_of, portions
from spillway.model import CostRecord, Lease, LeaseState, Market, PoolUsage, PricingCategory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

_lease = schema.lease.c
_cost = schema.cost_record.c
_refusal = schema.refusal.c

_LEASED, _PROMISED, _HOT = "leased", "promised", "hot"
_pools: BindParameter[Any] = bindparam("pools", expanding=True)
_since = bindparam("since", type_=schema.UtcDateTime)

# What every look at a pool asks, made once: making a statement takes longer than running it.
_USED = union_all(
    select(literal(_LEASED).label("what"), _lease.pool, func.sum(_lease.slots).label("slots"))
    .where(_lease.pool.in_(_pools), schema.is_open)
    .group_by(_lease.pool),
    # Slots that jobs are on their way to, which were asked to move there.
    select(literal(_PROMISED), _lease.moving_to, func.sum(_lease.slots))
    .where(schema.is_open, _lease.moving_to.is_not(None))
    .group_by(_lease.moving_to),
    select(literal(_HOT), _refusal.pool, literal(0)).where(
        _refusal.pool.in_(_pools), _refusal.refused_at > _since
    ),
    select(literal(_HOT), _lease.pool, literal(0)).where(
        _lease.pool.in_(_pools),
        _lease.state == LeaseState.PREEMPTED.value,
        _lease.state_since > _since,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseReport:
    """One lease with what it cost, up to now while it is open.

    Attributes:
        placement_reason: Why it ran where it ran.
        marginal_cost: What the choice added to the bill, in US dollars.
        effective_cost: With commitments amortised.
        list_cost: At public price.
    """

    lease: Lease
    market: Market
    placement_reason: str
    marginal_cost: Decimal
    effective_cost: Decimal
    list_cost: Decimal


def usage(
    connection: Connection,
    pools: Sequence[str],
    *,
    by_month: Sequence[str],
    now: datetime,
    cool_down: timedelta,
) -> Mapping[str, PoolUsage]:
    """Return how each of `pools` is used at `now`, with the month's hours of those of `by_month`."""
    found = connection.execute(_USED, {"pools": list(pools), "since": now - cool_down})
    told = {(row.what, row.pool): row.slots for row in found}
    used = _month_hours(connection, by_month, now) if by_month else {}
    return {
        pool: PoolUsage(
            leased_slots=told.get((_LEASED, pool), 0),
            promised_slots=told.get((_PROMISED, pool), 0),
            month_slot_hours=round(Decimal(used.get(pool, 0)), 6),
            cooling_down=(_HOT, pool) in told,
        )
        for pool in pools
    }


def _month_hours(
    connection: Connection, pools: Sequence[str], now: datetime
) -> Mapping[str, float]:
    rows = connection.execute(
        select(_lease.pool, func.sum(held_slot_hours(connection, _month(now), now)).label("hours"))
        .where(_lease.pool.in_(pools), or_(schema.is_open, _lease.ended_at > _month(now)))
        .group_by(_lease.pool)
    )
    return {row.pool: row.hours for row in rows}


def runs(
    connection: Connection,
    *,
    dag_id: str | None,
    run_id: str | None,
    now: datetime,
    limit: int,
) -> Sequence[LeaseReport]:
    """Return leases with their costs, newest first."""
    wanted = [
        column == value
        for column, value in ((_lease.dag_id, dag_id), (_lease.run_id, run_id))
        if value is not None
    ]
    rows = connection.execute(
        select(schema.lease, schema.placement.c.document)
        .join(schema.placement)
        .where(*wanted)
        .order_by(_lease.token.desc())
        .limit(limit)
    ).all()
    recorded: dict[int, list[CostRecord]] = defaultdict(list)
    for charge in _costs(connection, [row.token for row in rows]):
        recorded[charge.lease_token].append(_cost_record_of(charge))
    return [_report(row, recorded[row.token], now) for row in rows]


def cost_records(connection: Connection, lease_key: str) -> Sequence[CostRecord]:
    """Return what the lease was charged, by charge period; nothing while it is open."""
    token = select(_lease.token).where(_lease.key == lease_key).scalar_subquery()
    rows = connection.execute(_select_costs().where(_cost.lease_token == token))
    return [_cost_record_of(row) for row in rows]


def added_to_bill(connection: Connection, keys: Collection[str]) -> Decimal:
    """Return the marginal costs that the leases `keys` were charged, all together."""
    # Added up here: on SQLite they are text.
    marginal = select(_cost.marginal_cost).join(schema.lease).where(_lease.key.in_(list(keys)))
    return sum(connection.execute(marginal).scalars(), Decimal(0))


def _month(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _select_costs() -> Any:
    return (
        select(schema.cost_record, _lease.key.label("lease_key"))
        .join(schema.lease)
        .order_by(_cost.lease_token, _cost.charge_period_start)
    )


def _costs(connection: Connection, tokens: Sequence[int]) -> Iterator[Row[Any]]:
    for some in portions(tokens):
        yield from connection.execute(_select_costs().where(_cost.lease_token.in_(some)))


def _cost_record_of(row: Row[Any]) -> CostRecord:
    return CostRecord(
        lease_key=row.lease_key,
        pool=row.pool,
        pricing_category=PricingCategory(row.pricing_category),
        charge_period_start=row.charge_period_start,
        charge_period_end=row.charge_period_end,
        marginal_cost=row.marginal_cost,
        effective_cost=row.effective_cost,
        list_cost=row.list_cost,
    )


def _report(row: Row[Any], recorded: Sequence[CostRecord], now: datetime) -> LeaseReport:
    lease = lease_of(row)

    def total(usd_per_hour: Decimal, charged: Iterable[Decimal]) -> Decimal:
        if lease.ended_at is not None:
            return sum(charged, Decimal(0))
        since = lease.granted_at
        return cost(usd_per_hour, since=since, start=since, end=max(now, since))

    return LeaseReport(
        lease=lease,
        market=Market(row.market),
        placement_reason=row.document["reason"],
        marginal_cost=total(lease.marginal_usd_per_hour, (r.marginal_cost for r in recorded)),
        effective_cost=total(lease.effective_usd_per_hour, (r.effective_cost for r in recorded)),
        list_cost=total(lease.list_usd_per_hour, (r.list_cost for r in recorded)),
    )
