"""What the providers would bill for an outcome, pool by pool: what is owed anyway, and what the jobs added to it.

This is the contract's side: hours used in the period, prices as they were each hour. The ledger's records say what each lease
was charged at its launch; `marginal_recorded` sets one beside the other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, assert_never

from spillway.ledger.accrual import cost
from spillway.model import (
    CapacityBlock,
    HourlyCommitment,
    Market,
    MonthlyMinimum,
    Pool,
    PrepaidHours,
)
from spillway.placement.price import hours, next_month

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spillway.sim.outcome import Attempt, Outcome
    from spillway.sim.scenario import Scenario

_ZERO: Final = Decimal(0)
_CENT_OF_CENT: Final = Decimal("0.0001")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBill:
    """One pool's part of the bill, in US dollars.

    Attributes:
        leases: How many there were.
        slot_hours: How long slots were leased, jobs that end after the time simulated included.
        added_usd: What the leases added to the bill.
        owed_usd: What is owed for the time simulated whether used or not.
        unused_usd: The part of it for hours nobody used: the unused commitment's own row.
        utilisation: Share of the hours owed that were used; None where none are.
    """

    pool: str
    market: Market
    leases: int
    slot_hours: Decimal
    added_usd: Decimal
    owed_usd: Decimal = _ZERO
    unused_usd: Decimal = _ZERO
    utilisation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Commitment:
    """Hours owed, hours of them used, and what the hours owed cost."""

    owed_hours: Decimal
    used_hours: Decimal
    usd_per_hour: Decimal
    added_usd: Decimal


def bills(outcome: Outcome) -> tuple[PoolBill, ...]:
    """Return the bill of each pool, in the order of the pools."""
    by_pool: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in outcome.attempts:
        by_pool[attempt.pool].append(attempt)
    return tuple(
        pool_bill(pool, by_pool[pool.name], outcome.scenario) for pool in outcome.scenario.pools
    )


def pool_bill(pool: Pool, attempts: Sequence[Attempt], scenario: Scenario) -> PoolBill:
    """Return what `attempts`, all on `pool`, come to."""
    leased = hours(sum((attempt.leased for attempt in attempts), timedelta(0)))
    terms = _terms(pool, attempts, scenario)
    if terms is None:
        added = sum((_at_list_price(pool, a, scenario) for a in attempts), _ZERO)
        return PoolBill(
            pool=pool.name,
            market=pool.market,
            leases=len(attempts),
            slot_hours=leased,
            added_usd=added,
        )
    unused = max(terms.owed_hours - terms.used_hours, _ZERO)
    return PoolBill(
        pool=pool.name,
        market=pool.market,
        leases=len(attempts),
        slot_hours=leased,
        added_usd=terms.added_usd,
        owed_usd=terms.owed_hours * terms.usd_per_hour,
        unused_usd=unused * terms.usd_per_hour,
        utilisation=float(1 - unused / terms.owed_hours) if terms.owed_hours else None,
    )


def _terms(pool: Pool, attempts: Sequence[Attempt], scenario: Scenario) -> _Commitment | None:
    match pool.commitment:
        case None:
            return None
        case HourlyCommitment() as hourly:
            window = (scenario.start, scenario.end)
            return _Commitment(
                owed_hours=pool.slots * hours(window[1] - window[0]),
                used_hours=_used(attempts, *window),
                usd_per_hour=hourly.usd_per_slot_hour,
                added_usd=_ZERO,
            )
        case MonthlyMinimum() as monthly:
            return _monthly(monthly, attempts, scenario)
        case PrepaidHours() as prepaid:
            return _prepaid(prepaid, attempts, scenario)
        case CapacityBlock() as block:
            start, end = max(block.starts_at, scenario.start), min(block.ends_at, scenario.end)
            return _Commitment(
                owed_hours=pool.slots * hours(max(end - start, timedelta(0))),
                used_hours=_used(attempts, start, end),
                usd_per_hour=block.usd_per_slot_hour,
                added_usd=_ZERO,
            )
    assert_never(pool.commitment)


def _monthly(terms: MonthlyMinimum, attempts: Sequence[Attempt], scenario: Scenario) -> _Commitment:
    """Count each calendar month by itself.

    The minimum of every month that the time simulated touches is owed in full, if it begins before the contract's term is over.
    """
    owed = used = added = _ZERO
    ends = [attempt.ended_at for attempt in attempts]
    for start, end in _months(scenario.start, max([scenario.end, *ends])):
        term = end if terms.ends_at is None else max(min(end, terms.ends_at), start)
        taken, inside = _used(attempts, start, end), _used(attempts, start, term)
        past = max(inside - terms.slot_hours, _ZERO) + (taken - inside)
        added += taken * terms.variable_usd_per_slot_hour + past * terms.overage_usd_per_slot_hour
        if start < min(scenario.end, term):
            owed += terms.slot_hours
            used += min(inside, terms.slot_hours)
    return _Commitment(
        owed_hours=owed, used_hours=used, usd_per_hour=terms.usd_per_slot_hour, added_usd=added
    )


def _prepaid(terms: PrepaidHours, attempts: Sequence[Attempt], scenario: Scenario) -> _Commitment:
    """Spread what was bought evenly over its period; the part that falls into the time simulated is owed."""
    start, end = max(terms.starts_at, scenario.start), min(terms.ends_at, scenario.end)
    period = hours(terms.ends_at - terms.starts_at)
    share = hours(max(end - start, timedelta(0))) / period if period > 0 else _ZERO
    inside = _used(attempts, terms.starts_at, terms.ends_at)
    everything = hours(sum((attempt.leased for attempt in attempts), timedelta(0)))
    past = max(inside - terms.slot_hours, _ZERO) + (everything - inside)
    owed = (terms.slot_hours * share).quantize(_CENT_OF_CENT)
    return _Commitment(
        owed_hours=owed,
        used_hours=min(_used(attempts, start, end), owed),
        usd_per_hour=terms.usd_per_slot_hour,
        added_usd=past * terms.overage_usd_per_slot_hour,
    )


def _used(attempts: Sequence[Attempt], start: datetime, end: datetime) -> Decimal:
    """Return the slot hours leased in `[start, end)`."""
    held = (min(a.ended_at, end) - max(a.granted_at, start) for a in attempts)
    return hours(sum((max(one, timedelta(0)) for one in held), timedelta(0)))


def _months(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the calendar months (UTC) that `[start, end)` touches, whole."""
    first = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while first < end:
        yield first, next_month(first)
        first = next_month(first)


def _at_list_price(pool: Pool, attempt: Attempt, scenario: Scenario) -> Decimal:
    """Return what a lease costs at the list prices that held while it was held."""
    instants, prices = scenario.price_steps[pool.name]
    place = bisect_right(instants, attempt.granted_at)
    start, total = attempt.granted_at, _ZERO
    while start < attempt.ended_at:
        until = (
            min(instants[place], attempt.ended_at) if place < len(instants) else attempt.ended_at
        )
        total += cost(prices[place], since=start, start=start, end=until)
        start, place = until, place + 1
    return total
