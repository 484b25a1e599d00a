"""Marginal and effective prices, one kind of commitment at a time."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spillway.model import (
    CapacityBlock,
    HourlyCommitment,
    MonthlyMinimum,
    Pool,
    PoolUsage,
    PrepaidHours,
)
from spillway.placement.price import (
    MICRO_USD,
    Forecast,
    block_price,
    hourly_price,
    list_price,
    monthly_price,
    next_month,
    past_share,
    prepaid_price,
    price,
    slots_owed,
)
from spillway.testing.strategies import (
    capacity_blocks,
    durations,
    instants,
    monthly_minimums,
    pools,
    prepaid_hours,
    usages,
)

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


@given(pools(), usages(), st.integers(1, 200), st.integers(1, 8), instants)
def test_a_gang_costs_what_its_slots_cost_one_after_the_other(
    pool: Pool, usage: PoolUsage, leased_hours: int, slots: int, now: datetime
) -> None:
    """Each slot is priced with those before it among what is forecast: they are used up at the same time."""
    leased = timedelta(hours=leased_hours)
    gang = price(pool, usage, leased=leased, now=now, slots=slots)
    bill = Decimal(0)
    for earlier in range(slots):
        commitment = pool.commitment
        inside = leased_hours
        if isinstance(commitment, PrepaidHours):
            within = min(commitment.ends_at, now + leased) - max(commitment.starts_at, now)
            inside = max(Decimal(within / timedelta(hours=1)), Decimal(0))
        if isinstance(commitment, MonthlyMinimum):
            assume(now + leased <= next_month(now))
            if commitment.ends_at is not None:
                within = max(min(leased, commitment.ends_at - now), timedelta(0))
                inside = Decimal(within / timedelta(hours=1))
        taken = replace(usage, forecast_slot_hours=usage.forecast_slot_hours + earlier * inside)
        bill += price(pool, taken, leased=leased, now=now).marginal
    assert float(gang.marginal * slots) == pytest.approx(float(bill), abs=1e-4)
    assert price(pool, usage, leased=leased, now=now, slots=1) == price(
        pool, usage, leased=leased, now=now
    )


def test_part_of_a_gang_s_hours_may_be_within_the_minimum() -> None:
    """Of four slots for ten hours, twenty of the forty slot hours are left in the minimum."""
    quoted = monthly_price(
        PARTNER, used=Decimal(180), leased=timedelta(hours=10), now=EARLY, slots=4
    )
    assert quoted.marginal == Decimal("0.05")


@given(pools(), usages(), durations(), instants)
def test_every_pool_has_a_price_with_a_reason(
    pool: Pool, usage: PoolUsage, leased: timedelta, now: datetime
) -> None:
    quoted = price(pool, usage, leased=leased, now=now)
    assert quoted.marginal >= 0
    assert quoted.reason


def test_hours_after_the_contract_s_term_cost_the_overage() -> None:
    ends = replace(PARTNER, ends_at=EARLY + timedelta(hours=6))
    quoted = monthly_price(ends, used=Decimal(0), leased=timedelta(hours=10), now=EARLY)
    overage, fee = PARTNER.overage_usd_per_slot_hour, PARTNER.variable_usd_per_slot_hour
    assert quoted.marginal == overage * 4 / 10 + fee
    for leased in (timedelta(0), timedelta(hours=10)):
        over = monthly_price(ends, used=Decimal(0), leased=leased, now=EARLY + timedelta(hours=6))
        assert over.marginal == over.effective == overage + fee
        assert "contract ended" in over.reason


# ---- what the period's forecast makes of it

# Ten slots around the clock, April's 720 hours.
TEN_SLOTS = MonthlyMinimum(
    slot_hours=Decimal(7200),
    usd_per_slot_hour=Decimal("1.50"),
    overage_usd_per_slot_hour=Decimal("2.00"),
    variable_usd_per_slot_hour=Decimal("0.10"),
)
APRIL = datetime(2026, 4, 11, tzinfo=UTC)
JOBS, JOB_HOURS = 20, 5


def bill_of_the_jobs(percent: int, *, error: int = 0) -> Decimal:
    """Return what twenty jobs of five hours add, where all use of April is forecast to be `percent` of the contract."""
    used, total = Decimal(1000), TEN_SLOTS.slot_hours * percent / 100
    bill = Decimal(0)
    for job in range(JOBS):
        others = total - used - (JOBS - job) * JOB_HOURS  # jobs placed are among the others
        quoted = monthly_price(
            TEN_SLOTS,
            used=used,
            forecast=Forecast(slot_hours=others, error=Decimal(error)),
            leased=timedelta(hours=JOB_HOURS),
            now=APRIL,
        )
        bill += quoted.marginal * JOB_HOURS
    return bill - JOBS * JOB_HOURS * TEN_SLOTS.variable_usd_per_slot_hour


@pytest.mark.parametrize(("percent", "per_hour"), [(40, "0"), (100, "0"), (140, "2.00")])
def test_ten_slots_under_contract_cost_nothing_or_the_overage_by_forecast_use(
    percent: int, per_hour: str
) -> None:
    assert bill_of_the_jobs(percent) == JOBS * JOB_HOURS * Decimal(per_hour)


def test_at_the_tie_the_next_hour_is_the_first_of_the_overage() -> None:
    tie = Forecast(slot_hours=Decimal(6200))
    next_one = monthly_price(
        TEN_SLOTS, used=Decimal(1000), forecast=tie, leased=timedelta(hours=5), now=APRIL
    )
    assert next_one.marginal == Decimal("2.10")


@pytest.mark.parametrize(("percent", "per_hour"), [(40, 0.0), (100, 0.9), (140, 2.0)])
def test_a_forecast_that_may_err_makes_the_tie_about_half_the_overage(
    percent: int, per_hour: float
) -> None:
    """Not quite half: the forecast holds the jobs themselves, which puts them on the near side of the tie."""
    bill = bill_of_the_jobs(percent, error=400)
    assert float(bill) / (JOBS * JOB_HOURS) == pytest.approx(per_hour, abs=0.01)


@given(st.floats(0.1, 500), st.floats(-500, 500), st.floats(0.1, 200), st.integers(0, 2**32))
def test_the_share_that_will_be_missing_is_what_a_simulation_finds(
    taken: float, beyond: float, error: float, seed: int
) -> None:
    rng = random.Random(seed)
    missing = [
        (max(demand + taken, 0) - max(demand, 0)) / taken
        for demand in (rng.gauss(beyond, error) for _ in range(500))
    ]
    share = past_share(
        Decimal(taken),
        left=Decimal(0),
        forecast=Forecast(slot_hours=Decimal(beyond), error=Decimal(error)),
    )
    noise = statistics.stdev(missing) / 500**0.5
    assert float(share) == pytest.approx(statistics.fmean(missing), abs=6 * noise + 0.02)


# ---- prepaid hours

PREPAID = PrepaidHours(
    slot_hours=Decimal(100),
    usd_per_slot_hour=Decimal("0.05"),
    overage_usd_per_slot_hour=Decimal("0.08"),
    starts_at=datetime(2026, 3, 1, tzinfo=UTC),
    ends_at=datetime(2026, 3, 11, tzinfo=UTC),
)


def prepaid(used: int, forecast: int, leased_hours: int, now: datetime = EARLY) -> Decimal:
    return prepaid_price(
        PREPAID,
        used=Decimal(used),
        forecast=Forecast(slot_hours=Decimal(forecast)),
        leased=timedelta(hours=leased_hours),
        now=now,
    ).marginal


@pytest.mark.parametrize(
    ("used", "forecast", "marginal"),
    [
        (0, 0, "0"),  # would lapse
        (0, 90, "0"),  # the last hours left over
        (0, 95, "0.04"),  # half of them will be missed
        (0, 100, "0.08"),  # all used up without it
        (60, 20, "0"),
        (60, 40, "0.08"),
        (100, 0, "0.08"),  # nothing left
    ],
)
def test_a_prepaid_hour_costs_what_it_would_be_worth_later(
    used: int, forecast: int, marginal: str
) -> None:
    assert prepaid(used, forecast, 10) == Decimal(marginal)


def test_hours_after_the_prepaid_period_cost_the_overage() -> None:
    assert prepaid(0, 0, 10, PREPAID.ends_at - timedelta(hours=4)) == Decimal("0.048")
    assert prepaid(0, 0, 10, PREPAID.ends_at) == Decimal("0.08")
    assert prepaid(0, 0, 0, PREPAID.ends_at) == Decimal("0.08")
    assert prepaid(0, 0, 10, PREPAID.starts_at - timedelta(hours=6)) == Decimal("0.048")


@given(prepaid_hours(), st.decimals(0, 8000, places=2), durations(), instants)
def test_a_prepaid_price_lies_between_nothing_and_the_overage(
    commitment: PrepaidHours, used: Decimal, leased: timedelta, now: datetime
) -> None:
    quoted = prepaid_price(commitment, used=used, leased=leased, now=now)
    assert 0 <= quoted.marginal <= commitment.overage_usd_per_slot_hour
    assert quoted.effective >= quoted.marginal - MICRO_USD


@given(
    prepaid_hours(),
    st.decimals(0, 8000, places=2),
    st.decimals(0, 8000, places=2),
    durations(longest=timedelta(days=5)),
)
def test_the_more_is_forecast_the_dearer_a_prepaid_hour(
    commitment: PrepaidHours, a: Decimal, b: Decimal, leased: timedelta
) -> None:
    less, more = (
        prepaid_price(
            commitment,
            used=Decimal(0),
            forecast=Forecast(slot_hours=each),
            leased=leased,
            now=commitment.starts_at,
        )
        for each in sorted((a, b))
    )
    assert less.marginal <= more.marginal


# ---- capacity blocks

BLOCK = CapacityBlock(
    usd_per_slot_hour=Decimal(30),
    starts_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    ends_at=datetime(2026, 3, 2, 12, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("hour", "leased_hours", "marginal", "effective"),
    [
        (0, 24, "0", "30"),  # to its very end
        (12, 12, "0", "30"),
        (12, 16, "20", "42.5"),  # a quarter of the lease lies after it
        (24, 1, "80", "80"),  # gone
        (-1, 1, "80", "80"),  # not there yet
        (23, 0, "0", "30"),
        (24, 0, "80", "80"),
    ],
)
def test_a_block_costs_nothing_more_until_its_end_and_then_it_is_gone(
    hour: int, leased_hours: int, marginal: str, effective: str
) -> None:
    quoted = block_price(
        BLOCK,
        list_usd_per_hour=Decimal(80),
        leased=timedelta(hours=leased_hours),
        now=BLOCK.starts_at + timedelta(hours=hour),
    )
    assert (quoted.marginal, quoted.effective) == (Decimal(marginal), Decimal(effective))


@given(pools(), capacity_blocks(), instants)
def test_a_block_has_slots_only_while_it_lasts(
    pool: Pool, block: CapacityBlock, now: datetime
) -> None:
    there = slots_owed(replace(pool, commitment=block), now)
    end = block.ends_at if pool.said_end is None else min(block.ends_at, pool.said_end.at)
    assert there == (pool.slots if block.starts_at <= now < end else 0)
