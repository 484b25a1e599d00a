"""What an hour of a pool adds to the bill: its marginal price, by what is owed for it already.

Decide on the marginal price, report the effective one. Each kind of commitment has a marginal price of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, assert_never

from spillway.model import Commitment, HourlyCommitment, MonthlyMinimum, Pool, PoolUsage

MICRO_USD: Final = Decimal("0.000001")
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one slot for one hour, in US dollars.

    Attributes:
        marginal: What the hour adds to the bill.
        effective: With the commitment amortised.
        reason: Why the marginal price is what it is, for people.
    """

    marginal: Decimal
    effective: Decimal
    reason: str


def price(pool: Pool, usage: PoolUsage, *, leased: timedelta, now: datetime) -> Price:
    """Return the mean price per hour of a lease of `pool` that begins `now` and is expected to last `leased`."""
    commitment: Commitment | None = pool.commitment
    match commitment:
        case None:
            return list_price(pool.list_usd_per_hour)
        case HourlyCommitment():
            return hourly_price(commitment)
        case MonthlyMinimum():
            return monthly_price(commitment, used=usage.month_slot_hours, leased=leased, now=now)
    assert_never(commitment)


def list_price(usd_per_hour: Decimal) -> Price:
    """Return the price of capacity nothing is owed for."""
    return Price(marginal=usd_per_hour, effective=usd_per_hour, reason="list price")


def hourly_price(commitment: HourlyCommitment) -> Price:
    """Return the price of a slot that is owed every hour, used or not: nothing more.

    A slot that is taken makes no offer, so there is no hour of such a pool that costs more than this.
    """
    return Price(
        marginal=Decimal(0),
        effective=commitment.usd_per_slot_hour,
        reason="committed by the hour: owed whether used or not",
    )


def monthly_price(
    commitment: MonthlyMinimum, *, used: Decimal, leased: timedelta, now: datetime
) -> Price:
    """Return the mean price over a lease some of whose hours may lie past the minimum.

    Every hour costs the variable fee; an hour past its month's minimum costs the overage as well. A lease that goes on
    into the next calendar month draws on that month's minimum there.

    Only use up to `now` counts against the minimum, so early in a month that will end past its minimum the price is too
    low by up to the overage.
    """
    share = _share_within(commitment, used=used, leased=leased, now=now)
    variable, overage = commitment.variable_usd_per_slot_hour, commitment.overage_usd_per_slot_hour
    past = (1 - share) * overage
    return Price(
        marginal=(variable + past).quantize(MICRO_USD),
        effective=(variable + share * commitment.usd_per_slot_hour + past).quantize(MICRO_USD),
        reason=_monthly_reason(commitment, used=used, share=share),
    )


def hours(duration: timedelta) -> Decimal:
    """Return `duration` in hours, exact to the decimal context's precision."""
    return Decimal(duration // timedelta(microseconds=1)) / Decimal(
        _HOUR // timedelta(microseconds=1)
    )


def _share_within(
    commitment: MonthlyMinimum, *, used: Decimal, leased: timedelta, now: datetime
) -> Decimal:
    """Return which share of the lease's hours lies within the minimum, from 0 to 1."""
    left = max(commitment.slot_hours - used, Decimal(0))
    if leased <= timedelta(0):
        return Decimal(1) if left > 0 else Decimal(0)
    this_month = min(leased, next_month(now) - now)
    within = min(hours(this_month), left)
    within += min(hours(leased - this_month), commitment.slot_hours)
    return within / hours(leased)


def _monthly_reason(commitment: MonthlyMinimum, *, used: Decimal, share: Decimal) -> str:
    use = f"{used:.1f} of {commitment.slot_hours:.1f} committed hours used this month"
    if share >= 1:
        return f"within the monthly minimum: {use}"
    if share <= 0:
        return f"past the monthly minimum, so overage: {use}"
    return f"{share:.0%} of the lease within the monthly minimum, the rest overage: {use}"


def next_month(now: datetime) -> datetime:
    """Return the first instant of the calendar month after `now`."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
