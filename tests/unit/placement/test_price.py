"""Marginal and effective prices, one kind of commitment at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.model import HourlyCommitment, MonthlyMinimum, Pool, PoolUsage
from spillway.placement.price import (
    MICRO_USD,
    hourly_price,
    list_price,
    monthly_price,
    next_month,
    price,
)
from spillway.testing.strategies import durations, instants, monthly_minimums, pools, usages

EARLY = datetime(2026, 3, 2, tzinfo=UTC)
PARTNER = MonthlyMinimum(
    slot_hours=Decimal(200),
    usd_per_slot_hour=Decimal("0.05"),
    overage_usd_per_slot_hour=Decimal("0.08"),
    variable_usd_per_slot_hour=Decimal("0.01"),
)


def partner(used: float, leased_hours: float, now: datetime = EARLY) -> tuple[Decimal, Decimal]:
    quoted = monthly_price(
        PARTNER, used=Decimal(str(used)), leased=timedelta(hours=leased_hours), now=now
    )
    return quoted.marginal, quoted.effective


def test_capacity_nothing_is_owed_for_costs_its_list_price() -> None:
    quoted = list_price(Decimal("0.1"))
    assert (quoted.marginal, quoted.effective) == (Decimal("0.1"), Decimal("0.1"))


def test_a_slot_owed_by_the_hour_costs_nothing_more() -> None:
    quoted = hourly_price(HourlyCommitment(usd_per_slot_hour=Decimal("0.06")))
    assert (quoted.marginal, quoted.effective) == (Decimal(0), Decimal("0.06"))


@pytest.mark.parametrize(
    ("used", "leased_hours", "marginal", "effective"),
    [
        (0, 10, "0.01", "0.06"),  # all within: the variable fee
        (190, 10, "0.01", "0.06"),  # ends exactly at the minimum
        (195, 10, "0.05", "0.075"),  # half within, half past
        (200, 10, "0.09", "0.09"),  # all past: the overage and the fee
        (500, 10, "0.09", "0.09"),
        (0, 0, "0.01", "0.06"),  # nothing leased, minimum left
        (200, 0, "0.09", "0.09"),
    ],
)
def test_a_monthly_minimum_blends_fee_and_overage(
    used: float, leased_hours: float, marginal: str, effective: str
) -> None:
    assert partner(used, leased_hours) == (Decimal(marginal), Decimal(effective))


def test_a_lease_over_the_month_s_end_draws_on_the_next_minimum() -> None:
    last_evening = datetime(2026, 3, 31, 19, tzinfo=UTC)
    assert partner(500, 10, last_evening) == partner(195, 10)


@pytest.mark.parametrize(
    ("now", "then"),
    [
        (datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
        (datetime(2026, 1, 31, 5, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
    ],
)
def test_a_month_ends_where_the_next_begins(now: datetime, then: datetime) -> None:
    assert next_month(now) == then


@given(monthly_minimums(), st.decimals(0, 8000, places=2), durations(), instants)
def test_a_monthly_price_lies_between_the_fee_and_the_overage(
    commitment: MonthlyMinimum, used: Decimal, leased: timedelta, now: datetime
) -> None:
    quoted = monthly_price(commitment, used=used, leased=leased, now=now)
    fee = commitment.variable_usd_per_slot_hour
    assert fee <= quoted.marginal <= fee + commitment.overage_usd_per_slot_hour + MICRO_USD
    assert quoted.effective >= quoted.marginal - MICRO_USD


@given(
    monthly_minimums(), st.decimals(0, 8000, places=2), st.decimals(0, 8000, places=2), durations()
)
def test_more_use_never_makes_the_next_hour_cheaper(
    commitment: MonthlyMinimum, a: Decimal, b: Decimal, leased: timedelta
) -> None:
    less = monthly_price(commitment, used=min(a, b), leased=leased, now=EARLY)
    more = monthly_price(commitment, used=max(a, b), leased=leased, now=EARLY)
    assert less.marginal <= more.marginal + MICRO_USD


@given(monthly_minimums(), st.decimals(0, 8000, places=2), st.integers(1, 300), st.integers(1, 300))
def test_two_leases_cost_what_one_of_both_lengths_costs(
    commitment: MonthlyMinimum, used: Decimal, first: int, second: int
) -> None:
    def bill(used: Decimal, leased_hours: int) -> Decimal:
        leased = timedelta(hours=leased_hours)
        quoted = monthly_price(commitment, used=used, leased=leased, now=EARLY)
        return quoted.marginal * leased_hours

    apart = bill(used, first) + bill(used + first, second)
    assert apart == pytest.approx(bill(used, first + second), abs=2 * MICRO_USD * (first + second))


@given(pools(), usages(), durations(), instants)
def test_every_pool_has_a_price_with_a_reason(
    pool: Pool, usage: PoolUsage, leased: timedelta, now: datetime
) -> None:
    quoted = price(pool, usage, leased=leased, now=now)
    assert quoted.marginal >= 0
    assert quoted.reason
