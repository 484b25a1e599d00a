from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from spillway.ledger.accrual import accrue, charge_periods, cost
from spillway.model import Lease, Market, PricingCategory
from spillway.testing import lease_strategies, strategies
from spillway.testing.ledger_samples import NOON, price_times_time

HOUR = timedelta(hours=1)
PRICES = st.decimals(min_value=0, max_value=10_000, places=15)
LEASED = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=40))
START = strategies.instants


@given(price=PRICES, start=START, leased=LEASED)
def test_a_whole_lease_costs_price_times_time_rounded_once(
    price: Decimal, start: datetime, leased: timedelta
) -> None:
    whole = cost(price, since=start, start=start, end=start + leased)
    assert whole == price_times_time(price, leased)


@given(price=PRICES, since=START, parts=st.lists(LEASED, min_size=1, max_size=5))
def test_costs_of_parts_sum_to_the_cost_of_the_whole(
    price: Decimal, since: datetime, parts: list[timedelta]
) -> None:
    edges = [since]
    for part in parts:
        edges.append(edges[-1] + part)
    costs = [
        cost(price, since=since, start=start, end=end) for start, end in itertools.pairwise(edges)
    ]
    assert sum(costs, Decimal(0)) == cost(price, since=since, start=since, end=edges[-1])


@given(price=PRICES, since=START, before=LEASED, leased=LEASED)
def test_no_part_is_off_by_more_than_one_rounding(
    price: Decimal, since: datetime, before: timedelta, leased: timedelta
) -> None:
    start = since + before
    part = cost(price, since=since, start=start, end=start + leased)
    exact = Fraction(price) * (leased // timedelta(microseconds=1)) / 3_600_000_000
    assert abs(Fraction(part) - exact) <= Fraction(1, 10**10)


@given(start=START, leased=st.timedeltas(timedelta(microseconds=1), timedelta(days=3)))
def test_charge_periods_cover_the_interval_and_cross_no_full_hour(
    start: datetime, leased: timedelta
) -> None:
    periods = list(charge_periods(start, start + leased))
    assert periods[0][0] == start
    assert periods[-1][1] == start + leased
    assert [end for _, end in periods[:-1]] == [begin for begin, _ in periods[1:]]
    for begin, end in periods:
        assert begin < end
        assert begin.replace(minute=0, second=0, microsecond=0) + HOUR >= end


def test_an_empty_interval_is_not_charged() -> None:
    assert list(charge_periods(NOON, NOON)) == []


def test_hours_are_utc_hours_whatever_the_time_zone() -> None:
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    start = NOON.astimezone(kathmandu)
    periods = list(charge_periods(start, start + 2 * HOUR))
    assert periods == [(NOON, NOON + HOUR), (NOON + HOUR, NOON + 2 * HOUR)]
    assert all(edge.tzinfo is UTC for period in periods for edge in period)


@given(lease=lease_strategies.leases(), market=strategies.markets)
def test_records_carry_the_leases_facts_and_the_markets_category(
    lease: Lease, market: Market
) -> None:
    records = accrue(lease, market, until=lease.granted_at + 2 * HOUR)
    assert {(r.lease_key, r.pool) for r in records} == {(lease.key, lease.pool)}
    assert {r.pricing_category for r in records} == {PricingCategory.of(market)}
    assert sum(r.list_cost for r in records) == 2 * lease.list_usd_per_hour
