"""Forecasts of what a commitment will still be used for."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.model import (
    CapacityBlock,
    HourlyCommitment,
    Market,
    MonthlyMinimum,
    Pool,
    PoolDay,
    PoolUsage,
    PrepaidHours,
    Resources,
)
from spillway.placement.forecast import forecast_use, period_ahead, with_forecasts
from spillway.placement.price import NOTHING_FORECAST, Forecast, price
from spillway.testing.strategies import pool_days

NOW = datetime(2026, 3, 21, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)
PARTNER = Pool(
    name="partner",
    backend="local",
    market=Market.PARTNER,
    slots=10,
    shape=Resources(),
    list_usd_per_hour=Decimal(3),
    commitment=MonthlyMinimum(
        slot_hours=Decimal(3100),
        usd_per_slot_hour=Decimal(1),
        overage_usd_per_slot_hour=Decimal(2),
    ),
)


def days(*slot_hours: float) -> list[PoolDay]:
    """Return the days up to yesterday."""
    return [
        PoolDay(day=(NOW - timedelta(days=ago)).date(), slot_hours=used, losses=0)
        for ago, used in enumerate(reversed(slot_hours), start=1)
    ]


def test_even_use_goes_on_and_is_thought_certain() -> None:
    forecast = forecast_use(days(*[100.0] * 20), now=NOW, until=APRIL)
    assert forecast == Forecast(slot_hours=Decimal(1100), error=Decimal(0))


def test_days_without_a_lease_count_from_the_first_that_had_one() -> None:
    assert forecast_use(days(100.0, 0.0), now=NOW, until=APRIL).slot_hours == 550
    only = days(100.0, 0.0)[:2]
    gap = [day for day in only if day.slot_hours]
    assert forecast_use(gap, now=NOW, until=APRIL).slot_hours == 550


def test_after_one_day_the_forecast_may_be_anything() -> None:
    forecast = forecast_use(days(24.0), now=NOW, until=APRIL)
    assert forecast.error >= forecast.slot_hours == 264


@pytest.mark.parametrize("until", [NOW, NOW - timedelta(days=1)])
def test_nothing_is_forecast_for_a_period_that_is_over(until: datetime) -> None:
    assert forecast_use(days(5.0, 6.0), now=NOW, until=until) == NOTHING_FORECAST


def test_a_pool_that_nobody_used_is_forecast_nothing() -> None:
    assert forecast_use([], now=NOW, until=APRIL) == NOTHING_FORECAST


def test_the_error_is_what_a_simulation_finds() -> None:
    rng = random.Random(11)
    off: list[float] = []
    errors: list[float] = []
    for _ in range(400):
        seen, ahead = ([rng.gammavariate(4, 25) for _ in range(n)] for n in (14, 11))
        forecast = forecast_use(days(*seen), now=NOW, until=APRIL)
        off.append(sum(ahead) - float(forecast.slot_hours))
        errors.append(float(forecast.error))
    assert statistics.pstdev(off) == pytest.approx(statistics.fmean(errors), rel=0.1)
    assert abs(statistics.fmean(off)) < 4 * statistics.pstdev(off) / 20


@given(st.lists(pool_days(), max_size=5))
def test_no_forecast_is_negative(seen: list[PoolDay]) -> None:
    forecast = forecast_use(seen, now=NOW, until=APRIL)
    assert forecast.slot_hours >= 0
    assert forecast.error >= 0


def test_only_what_is_bought_for_a_period_has_one_ahead() -> None:
    block = CapacityBlock(usd_per_slot_hour=Decimal(1), starts_at=NOW, ends_at=APRIL)
    prepaid = PrepaidHours(
        slot_hours=Decimal(9),
        usd_per_slot_hour=Decimal(1),
        overage_usd_per_slot_hour=Decimal(2),
        starts_at=NOW - timedelta(days=9),
        ends_at=NOW + timedelta(days=90),
    )
    to_come = replace(prepaid, starts_at=NOW + timedelta(days=30))
    hourly = HourlyCommitment(usd_per_slot_hour=Decimal(1))
    ahead = [
        period_ahead(replace(PARTNER, commitment=each), NOW)
        for each in (None, hourly, block, prepaid, to_come, PARTNER.commitment)
    ]
    assert ahead == [
        None,
        None,
        None,
        (NOW, prepaid.ends_at),
        (to_come.starts_at, to_come.ends_at),
        (NOW, APRIL),
    ]


@pytest.mark.parametrize(("daily", "marginal"), [(40.0, "0"), (140.0, "2")])
def test_use_so_far_and_use_to_come_set_the_price_together(daily: float, marginal: str) -> None:
    """On the 21st of 31 days: 20 days of use behind, 11 ahead, against 100 hours a day."""
    history = {"partner": days(*[daily] * 20)}
    usage = {"partner": PoolUsage(month_slot_hours=Decimal(20 * daily))}
    ahead = with_forecasts(usage, [PARTNER], history, NOW)
    quoted = price(PARTNER, ahead["partner"], leased=timedelta(hours=5), now=NOW)
    assert quoted.marginal == Decimal(marginal)
    unaware = price(PARTNER, usage["partner"], leased=timedelta(hours=5), now=NOW)
    assert unaware.marginal == 0, "use up to now alone is 90 % of the minimum"


def test_use_before_a_prepaid_period_begins_is_not_forecast_of_it() -> None:
    """Eleven days to go, of which the period has the last five."""
    bought = PrepaidHours(
        slot_hours=Decimal(500),
        usd_per_slot_hour=Decimal(1),
        overage_usd_per_slot_hour=Decimal(2),
        starts_at=APRIL - timedelta(days=5),
        ends_at=APRIL,
    )
    history = {"partner": days(*[100.0] * 20)}
    ahead = with_forecasts({}, [replace(PARTNER, commitment=bought)], history, NOW)
    assert ahead["partner"].forecast_slot_hours == 500
    begun = replace(bought, starts_at=NOW - timedelta(days=5))
    ahead = with_forecasts({}, [replace(PARTNER, commitment=begun)], history, NOW)
    assert ahead["partner"].forecast_slot_hours == 1100
