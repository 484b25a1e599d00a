"""What the ledger tells: how full the pools are, what ran where, and what it cost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, or_, select

from spillway.ledger import schema
from spillway.ledger.accrual import cost
from spillway.ledger.history import held_slot_hours
from spillway.ledger.leases import lease_of
from spillway.model import CostRecord, Lease, LeaseState, Market, PoolUsage, PricingCategory

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_lease = schema.lease.c
_cost = schema.cost_record.c
_refusal = schema.refusal.c


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
    connection: Connection, pools: Sequence[str], *, now: datetime, cool_down: timedelta
) -> Mapping[str, PoolUsage]:
    """Return how each of `pools` is used at `now`."""
    counted = connection.execute(
        select(
            _lease.pool,
            func.sum(_lease.slots).filter(schema.is_open).label("leased"),
            func.sum(held_slot_hours(connection, _month(now), now)).label("hours"),
        )
        .where(_lease.pool.in_(pools), or_(schema.is_open, _lease.ended_at > _month(now)))
        .group_by(_lease.pool)
    )
    used = {row.pool: row for row in counted}
    promised = _promised(connection)
    hot = _cooling_down(connection, pools, since=now - cool_down)
    return {
        pool: PoolUsage(
            leased_slots=(used[pool].leased or 0) if pool in used else 0,
            promised_slots=promised.get(pool, 0),
            month_slot_hours=round(Decimal(used[pool].hours if pool in used else 0), 6),
            cooling_down=pool in hot,
        )
        for pool in pools
    }


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


def _promised(connection: Connection) -> Mapping[str, int]:
    """Return how many slots of each pool jobs are on their way to that were asked to move there."""
    moving = connection.execute(
        select(_lease.moving_to, func.sum(_lease.slots).label("slots"))
        .where(schema.is_open, _lease.moving_to.is_not(None))
        .group_by(_lease.moving_to)
    )
    return {row.moving_to: row.slots for row in moving}


def _cooling_down(connection: Connection, pools: Sequence[str], *, since: datetime) -> set[str]:
    refused = select(_refusal.pool).where(_refusal.pool.in_(pools), _refusal.refused_at > since)
    preempted = select(_lease.pool).where(
        _lease.pool.in_(pools),
        _lease.state == LeaseState.PREEMPTED.value,
        _lease.state_since > since,
    )
    return set(connection.execute(refused.union(preempted)).scalars())


def _month(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _select_costs() -> Any:
    return (
        select(schema.cost_record, _lease.key.label("lease_key"))
        .join(schema.lease)
        .order_by(_cost.lease_token, _cost.charge_period_start)
    )


def _costs(connection: Connection, tokens: Iterable[int]) -> Sequence[Row[Any]]:
    rows: Sequence[Row[Any]] = connection.execute(
        _select_costs().where(_cost.lease_token.in_(list(tokens)))
    ).all()
    return rows


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
