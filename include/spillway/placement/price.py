"""What an hour of a pool adds to the bill: its marginal price, by what is owed for it already.

Decide on the marginal price, report the effective one. Each kind of commitment has a marginal price of its own. Where
hours are bought for a period, the hour that is taken now may be missing later: what it is worth then is its price now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import NormalDist
from typing import Final, assert_never

from spillway.model import (
    CapacityBlock,
    Commitment,
    HourlyCommitment,
    MonthlyMinimum,
    Pool,
    PoolUsage,
    PrepaidHours,
)

MICRO_USD: Final = Decimal("0.000001")
_HOUR: Final = timedelta(hours=1)
_ZERO: Final = Decimal(0)
_NO_TIME: Final = timedelta(0)
_EVER: Final = datetime.min.replace(tzinfo=UTC)
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one slot for one hour, in US dollars; of a gang, the mean over its slots.

    Attributes:
        marginal: What the hour adds to the bill.
        effective: With the commitment amortised.
        reason: Why the marginal price is what it is, for people.
    """

    marginal: Decimal
    effective: Decimal
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Slot hours that other work is expected to use between now and the end of a commitment's period.

    Attributes:
        error: Its standard error; 0 for a forecast that is thought exact.
    """

    slot_hours: Decimal = _ZERO
    error: Decimal = _ZERO


NOTHING_FORECAST: Final = Forecast()


def price(
    pool: Pool, usage: PoolUsage, *, leased: timedelta, now: datetime, slots: int = 1
) -> Price:
    """Return the mean price per slot and hour of a lease of `pool` that begins `now` and is expected to last `leased`.

    A lease of several `slots` uses up a commitment as many times as fast: some of its slot hours may be within it, and the
    rest past it.
    """
    commitment = _until_its_end(pool)
    forecast = Forecast(slot_hours=usage.forecast_slot_hours, error=usage.forecast_error_slot_hours)
    match commitment:
        case None:
            return list_price(pool.list_usd_per_hour)
        case HourlyCommitment():
            return hourly_price(commitment)
        case MonthlyMinimum():
            used = usage.month_slot_hours
            return monthly_price(
                commitment, used=used, forecast=forecast, leased=leased, now=now, slots=slots
            )
        case PrepaidHours():
            used = usage.period_slot_hours
            return prepaid_price(
                commitment, used=used, forecast=forecast, leased=leased, now=now, slots=slots
            )
        case CapacityBlock():
            listed = pool.list_usd_per_hour
            return block_price(commitment, list_usd_per_hour=listed, leased=leased, now=now)
    assert_never(commitment)


def slots_owed(pool: Pool, now: datetime) -> int:
    """Return how many slots there are `now`: none outside of a capacity block or after their end, however many are configured."""
    if pool.said_end is not None and now >= pool.said_end.at:
        return 0
    commitment = pool.commitment
    if isinstance(commitment, CapacityBlock) and not (
        commitment.starts_at <= now < commitment.ends_at
    ):
        return 0
    return pool.slots


def _until_its_end(pool: Pool) -> Commitment | None:
    """Return what is owed for `pool`, as far as its provider says that the slots are there.

    Slots owed by the hour that end are a capacity block. Minimums and prepaid hours are owed whatever happens to slots.
    """
    commitment, said = pool.commitment, pool.said_end
    if said is None:
        return commitment
    if isinstance(commitment, CapacityBlock):
        return replace(commitment, ends_at=min(commitment.ends_at, said.at))
    if isinstance(commitment, HourlyCommitment):
        owed = commitment.usd_per_slot_hour
        return CapacityBlock(usd_per_slot_hour=owed, starts_at=_EVER, ends_at=said.at)
    return commitment


def list_price(usd_per_hour: Decimal) -> Price:
    """Return the price of capacity nothing is owed for."""
    return Price(marginal=usd_per_hour, effective=usd_per_hour, reason="list price")


def hourly_price(commitment: HourlyCommitment) -> Price:
    """Return the price of a slot that is owed every hour, used or not: nothing more.

    A slot that is taken makes no offer, so there is no hour of such a pool that costs more than this.
    """
    return Price(
        marginal=_ZERO,
        effective=commitment.usd_per_slot_hour,
        reason="committed by the hour: owed whether used or not",
    )


def monthly_price(
    commitment: MonthlyMinimum,
    *,
    used: Decimal,
    leased: timedelta,
    now: datetime,
    forecast: Forecast = NOTHING_FORECAST,
    slots: int = 1,
) -> Price:
    """Return the mean price over a lease some of whose hours may make the month's use go past its minimum.

    Every hour costs the variable fee. An hour that leaves the month's forecast use under the minimum costs nothing
    else; one that it pushes past the minimum costs the overage, now or when another task finds no hour left. A lease
    that goes on into the next calendar month draws on that month's minimum there, of which nothing is forecast. What
    comes after the contract's term costs the overage.
    """
    end = commitment.ends_at
    covered = leased if end is None else max(min(leased, end - now), _NO_TIME)
    here = min(covered, next_month(now) - now)
    left = commitment.slot_hours - used
    if end is not None and now >= end:
        past = Decimal(1)
    elif leased <= _NO_TIME:
        past = past_share(_ZERO, left=left, forecast=forecast)
    else:
        this_month, next_months = slots * hours(here), slots * hours(covered - here)
        beyond = this_month * past_share(this_month, left=left, forecast=forecast)
        beyond += max(next_months - commitment.slot_hours, _ZERO)
        beyond += slots * hours(leased - covered)
        past = beyond / (slots * hours(leased))
    variable, overage = commitment.variable_usd_per_slot_hour, commitment.overage_usd_per_slot_hour
    return Price(
        marginal=(variable + past * overage).quantize(MICRO_USD),
        effective=(variable + (1 - past) * commitment.usd_per_slot_hour + past * overage).quantize(
            MICRO_USD
        ),
        reason=_monthly_reason(commitment, used=used, forecast=forecast, past=past, now=now),
    )


def prepaid_price(
    commitment: PrepaidHours,
    *,
    used: Decimal,
    leased: timedelta,
    now: datetime,
    forecast: Forecast = NOTHING_FORECAST,
    slots: int = 1,
) -> Price:
    """Return the mean price over a lease that burns hours paid for: the shadow price of what is left at the end.

    What the forecast leaves over at the period's end lapses, so an hour of it costs nothing. An hour that will be
    missing costs what is paid in its place, the overage. Hours of the lease outside of the period are not prepaid.
    """
    inside = _overlap(commitment.starts_at, commitment.ends_at, leased=leased, now=now)
    left = commitment.slot_hours - used
    past = past_share(slots * hours(inside), left=left, forecast=forecast)
    if leased > _NO_TIME:
        past = 1 - (1 - past) * hours(inside) / hours(leased)
    elif not commitment.starts_at <= now < commitment.ends_at:
        past = Decimal(1)
    overage = commitment.overage_usd_per_slot_hour
    paid = (1 - past) * commitment.usd_per_slot_hour
    return Price(
        marginal=(past * overage).quantize(MICRO_USD),
        effective=(paid + past * overage).quantize(MICRO_USD),
        reason=_prepaid_reason(commitment, used=used, past=past, now=now),
    )


def block_price(
    commitment: CapacityBlock, *, list_usd_per_hour: Decimal, leased: timedelta, now: datetime
) -> Price:
    """Return the mean price over a lease of a block: nothing more until its end, then it is gone.

    What of the lease lies outside of the block has to run elsewhere; the pool's list price stands for that.
    """
    if leased > _NO_TIME:
        inside = _overlap(commitment.starts_at, commitment.ends_at, leased=leased, now=now)
        share = hours(inside) / hours(leased)
    else:
        share = Decimal(int(commitment.starts_at <= now < commitment.ends_at))
    elsewhere = (1 - share) * list_usd_per_hour
    return Price(
        marginal=elsewhere.quantize(MICRO_USD),
        effective=(share * commitment.usd_per_slot_hour + elsewhere).quantize(MICRO_USD),
        reason=_block_reason(commitment, share=share, now=now),
    )


def past_share(taken: Decimal, *, left: Decimal, forecast: Forecast) -> Decimal:
    """Return which share of `taken` slot hours is expected to be missing at the period's end, from 0 to 1.

    Of `left` hours others will use a normally distributed number `D`; taking `L` makes `E[(D + L - left)+ - (D - left)+]`
    hours be bought past what is left. The limit for `L = 0` is the probability that `D` uses everything up. It is right
    where hours past what is left can be bought; the forecast's own reaction to prices is not in it.
    """
    beyond = forecast.slot_hours - left
    if taken <= 0:
        return _chance_used_up(beyond, forecast.error)
    missing = _mean_above_zero(beyond + taken, forecast.error)
    missing -= _mean_above_zero(beyond, forecast.error)
    return min(max(missing / taken, _ZERO), Decimal(1))


def _chance_used_up(beyond: Decimal, error: Decimal) -> Decimal:
    if error <= 0:
        return Decimal(int(beyond >= 0))
    return Decimal(_NORMAL.cdf(float(beyond / error)))


def _mean_above_zero(mean: Decimal, error: Decimal) -> Decimal:
    """Return `E[max(X, 0)]` of a normal `X`; the standard loss function."""
    if error <= 0:
        return max(mean, _ZERO)
    ratio = float(mean / error)
    return error * Decimal(ratio * _NORMAL.cdf(ratio) + _NORMAL.pdf(ratio))


def hours(duration: timedelta) -> Decimal:
    """Return `duration` in hours, exact to the decimal context's precision."""
    return Decimal(duration // timedelta(microseconds=1)) / Decimal(
        _HOUR // timedelta(microseconds=1)
    )


def _overlap(start: datetime, end: datetime, *, leased: timedelta, now: datetime) -> timedelta:
    """Return how much of `[now, now + leased)` lies in `[start, end)`; `now + leased` may lie past the calendar."""
    return max(min(leased, end - now) - max(start - now, _NO_TIME), _NO_TIME)


def _monthly_reason(
    commitment: MonthlyMinimum, *, used: Decimal, forecast: Forecast, past: Decimal, now: datetime
) -> str:
    if commitment.ends_at is not None and now >= commitment.ends_at:
        return f"the contract ended on {commitment.ends_at:%Y-%m-%d}, so overage"
    use = f"{used:,.4f} of {commitment.slot_hours:,.4f} committed slot hours used this month"
    if forecast.slot_hours:
        use += f", {forecast.slot_hours:.1f} more forecast"
    if past <= 0:
        return f"within the monthly minimum: {use}"
    if past >= 1:
        return f"past the monthly minimum, so overage: {use}"
    return f"{1 - past:.0%} of the lease within the monthly minimum, the rest overage: {use}"


def _prepaid_reason(
    commitment: PrepaidHours, *, used: Decimal, past: Decimal, now: datetime
) -> str:
    if now >= commitment.ends_at:
        return f"the prepaid hours lapsed on {commitment.ends_at:%Y-%m-%d}, so overage"
    left = max(commitment.slot_hours - used, _ZERO)
    what = f"{left:.1f} of {commitment.slot_hours:.1f} prepaid hours left until {commitment.ends_at:%Y-%m-%d}"
    if past <= 0:
        return f"prepaid, and would lapse unused: {what}"
    if past >= 1:
        return f"prepaid hours will be used up without it, so overage: {what}"
    return f"{past:.0%} of the lease will be missing from what is prepaid: {what}"


def _block_reason(commitment: CapacityBlock, *, share: Decimal, now: datetime) -> str:
    if share >= 1:
        return f"capacity block, paid for until {commitment.ends_at:%Y-%m-%d %H:%M}"
    if share > 0:
        return (
            f"{share:.0%} of the lease within the capacity block, the rest elsewhere at list price"
        )
    if now >= commitment.ends_at:
        return f"the capacity block ended on {commitment.ends_at:%Y-%m-%d %H:%M}: list price"
    return f"the capacity block begins on {commitment.starts_at:%Y-%m-%d %H:%M}: list price"


def next_month(now: datetime) -> datetime:
    """Return the first instant of the calendar month after `now`."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
