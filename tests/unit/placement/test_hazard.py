"""Hazards learned from a pool's own leases, on top of priors that are stated."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.model import Market, Pool, PoolDay, Resources
from spillway.placement.hazard import (
    ADVISOR_BANDS,
    HALF_LIFE_DAYS,
    MACHINE_PRIOR,
    SPOT_ACCELERATOR_PRIOR,
    SPOT_PRIOR,
    Exposure,
    advisor_prior,
    exposure,
    with_learned_hazards,
)
from spillway.placement.recovery import PRIOR_PREEMPTIONS_PER_HOUR
from spillway.testing.strategies import pool_days, pools

NOW = datetime(2026, 3, 30, 12, tzinfo=UTC)
TODAY = NOW.date()
SPOT = Pool(
    name="spot",
    backend="aws",
    market=Market.SPOT,
    slots=8,
    shape=Resources(),
    list_usd_per_hour=Decimal(1),
    preemptions_per_hour=None,
    region="us-east-1",
)


def days(losses: int, slot_hours: float, *, ago: int = 0) -> list[PoolDay]:
    return [PoolDay(day=TODAY - timedelta(days=ago), slot_hours=slot_hours, losses=losses)]


def learned(pool: Pool, seen: list[PoolDay], **beside: list[PoolDay]) -> float:
    others = [replace(pool, name=name) for name in beside]
    first, *_ = with_learned_hazards([pool, *others], {pool.name: seen, **beside}, NOW)
    assert first.preemptions_per_hour is not None
    return first.preemptions_per_hour


@pytest.mark.parametrize(
    ("pool", "prior"),
    [
        (SPOT, SPOT_PRIOR.preemptions_per_hour),
        (
            replace(SPOT, shape=Resources(accelerator="V100", accelerator_count=1)),
            SPOT_ACCELERATOR_PRIOR.preemptions_per_hour,
        ),
        (replace(SPOT, preemptions_per_hour=0.3), 0.3),
        (replace(SPOT, market=Market.ON_DEMAND), MACHINE_PRIOR.preemptions_per_hour),
    ],
)
def test_a_pool_never_seen_has_the_hazard_of_its_prior(pool: Pool, prior: float) -> None:
    assert learned(pool, []) == pytest.approx(prior)


def test_where_nothing_is_learned_the_caution_is_the_same() -> None:
    assert PRIOR_PREEMPTIONS_PER_HOUR[Market.SPOT] == SPOT_PRIOR.preemptions_per_hour


def test_no_spot_pool_is_ever_thought_perfect() -> None:
    assert learned(SPOT, days(0, 10_000)) > 0


def test_what_was_seen_goes_before_the_prior_once_there_is_enough_of_it() -> None:
    rng = random.Random(3)
    true = 0.02
    seen = sum(rng.expovariate(true) < 10 for _ in range(500))
    assert learned(SPOT, days(seen, seen / true)) == pytest.approx(true, rel=0.1)


def test_one_bad_afternoon_does_not_condemn_a_pool_that_ran_for_weeks() -> None:
    weeks = [day for ago in range(1, 28) for day in days(0, 24, ago=ago)]
    assert learned(SPOT, [*weeks, *days(3, 4)]) < 0.02


def test_an_old_loss_counts_half_after_a_half_life() -> None:
    assert exposure(days(4, 8, ago=int(HALF_LIFE_DAYS)), TODAY) == Exposure(
        losses=2.0, slot_hours=4.0
    )


def test_a_new_pool_learns_from_the_pools_beside_it_but_not_as_much_as_from_itself() -> None:
    quiet = days(0, 1000)
    beside, itself = learned(SPOT, [], sibling=quiet), learned(SPOT, quiet)
    assert itself <= beside < learned(SPOT, [])
    assert learned(SPOT, days(5, 10), sibling=quiet) > 0.04


def test_a_zone_is_learned_of_by_itself_and_says_little_of_the_zone_beside_it() -> None:
    a, b = replace(SPOT, zone="us-east-1a"), replace(SPOT, name="b", zone="us-east-1b")
    c = replace(SPOT, name="c", zone="us-east-1a")
    lossy = {SPOT.name: days(100, 100)}
    own, other, same = (
        pool.preemptions_per_hour for pool in with_learned_hazards([a, b, c], lossy, NOW)
    )
    assert own is not None
    assert other is not None
    assert same is not None
    assert own > 0.9
    assert SPOT_PRIOR.preemptions_per_hour < other < same < own


@pytest.mark.parametrize("band", ADVISOR_BANDS)
def test_a_pool_in_a_band_of_the_advisor_begins_there(band: str) -> None:
    banded = replace(SPOT, interruption_band=band)
    assert learned(banded, []) == pytest.approx(advisor_prior(band).preemptions_per_hour)
    assert learned(replace(banded, preemptions_per_hour=0.3), []) == pytest.approx(0.3)
    assert learned(banded, days(50, 10)) > 0.3


def test_a_pool_elsewhere_says_nothing() -> None:
    elsewhere = replace(SPOT, name="west", region="us-west-2")
    history = {"west": days(500, 100)}
    first, _ = with_learned_hazards([SPOT, elsewhere], history, NOW)
    assert first.preemptions_per_hour == pytest.approx(SPOT_PRIOR.preemptions_per_hour)


def test_steady_machines_stay_at_nothing_until_one_is_lost() -> None:
    steady = replace(SPOT, market=Market.RESERVED, preemptions_per_hour=0.0)
    assert learned(steady, days(0, 500)) == 0.0
    assert 0 < learned(steady, days(1, 500)) < 1 / 500


def test_the_advisor_s_bands_are_in_their_order_and_two_days_of_losses_overturn_the_best() -> None:
    rates = [advisor_prior(band).preemptions_per_hour for band in ADVISOR_BANDS]
    assert rates == sorted(rates)
    assert 0 < rates[0] < 0.002
    lossy = advisor_prior("<5%").after(Exposure(losses=10, slot_hours=48))
    assert lossy.preemptions_per_hour > 0.05


@given(pools(), st.lists(pool_days(), max_size=5), st.integers(1, 5))
def test_another_loss_never_makes_a_pool_look_safer(
    pool: Pool, seen: list[PoolDay], more: int
) -> None:
    worse = [*seen, PoolDay(day=date(2026, 3, 30), slot_hours=0.0, losses=more)]
    assert learned(pool, worse) >= learned(pool, seen)


@given(pools(), st.lists(pool_days(), max_size=5), st.floats(0, 1000))
def test_quiet_hours_never_make_a_pool_look_worse(
    pool: Pool, seen: list[PoolDay], quiet: float
) -> None:
    better = [*seen, PoolDay(day=TODAY, slot_hours=quiet, losses=0)]
    assert learned(pool, better) <= learned(pool, seen) * (1 + 1e-12)
