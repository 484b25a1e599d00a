"""Offers: one a pool, priced by what is owed and used, with the room there is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.catalog.offers import make_offers
from spillway.catalog.pools_file import load_pools
from spillway.catalog.pools_schema import PoolSection
from spillway.model import (
    CapacityBlock,
    Offer,
    Placement,
    Pool,
    PoolUsage,
    Resources,
    SaidEnd,
    TaskSpec,
    Unplaced,
)
from spillway.placement.choose import choose
from spillway.testing.strategies import instants, pools, tasks, usages

SHIPPED = load_pools(Path(__file__).parents[3] / "include" / "pools.yaml")
NOW = datetime(2026, 3, 2, tzinfo=UTC)
TRAIN = TaskSpec(
    entry_point="package.module:train",
    resources=Resources(cpus=2, memory_gib=4),
    work=timedelta(hours=1),
    checkpoints=True,
)


def quote(usage: dict[str, PoolUsage], task: TaskSpec = TRAIN) -> dict[str, Offer]:
    made = make_offers(SHIPPED, usage=usage, free_slots={}, task=task, now=NOW)
    return {offer.pool: offer for offer in made}


def taken(usage: dict[str, PoolUsage], task: TaskSpec = TRAIN) -> str:
    decision = choose(task, quote(usage, task).values(), NOW)
    assert isinstance(decision, Placement)
    return decision.offer.pool


@given(st.lists(pools(), max_size=4, unique_by=lambda p: p.name), usages(), tasks(), instants)
def test_every_pool_makes_one_offer(
    some: list[Pool], usage: PoolUsage, task: TaskSpec, now: datetime
) -> None:
    used = {pool.name: usage for pool in some}
    made = make_offers(some, usage=used, free_slots={}, task=task, now=now)
    assert [offer.pool for offer in made] == [pool.name for pool in some]
    assert all(offer.free_slots >= 0 and offer.marginal_usd_per_hour >= 0 for offer in made)


@pytest.mark.parametrize(
    ("leased", "provider_says", "free"),
    [(0, None, 4), (3, None, 1), (4, None, 0), (9, None, 0), (0, 2, 2), (3, 2, 1), (0, -1, 0)],
)
def test_room_is_the_lesser_of_our_count_and_the_provider_s(
    leased: int, provider_says: int | None, free: int
) -> None:
    (pool,) = [pool for pool in SHIPPED if pool.name == "on_demand"]
    (offer,) = make_offers(
        [pool],
        usage={"on_demand": PoolUsage(leased_slots=leased)},
        free_slots={"on_demand": provider_says},
        task=TRAIN,
        now=NOW,
    )
    assert offer.free_slots == free


def test_of_two_ends_the_earlier_counts() -> None:
    (pool,) = [pool for pool in SHIPPED if pool.name == "reserved"]
    hour = timedelta(hours=1)
    task = replace(TRAIN, work=4 * hour)
    listed = pool.list_usd_per_hour

    def quoted(configured: int, said: int | None) -> Offer:
        block = CapacityBlock(
            usd_per_slot_hour=Decimal(1), starts_at=NOW - hour, ends_at=NOW + configured * hour
        )
        told = None if said is None else SaidEnd(at=NOW + said * hour, said_at=NOW)
        one = replace(pool, commitment=block, said_end=told)
        (offer,) = make_offers([one], usage={}, free_slots={}, task=task, now=NOW)
        return offer

    early, late = quoted(1, None), quoted(100, None)
    assert late.marginal_usd_per_hour == 0
    assert 0 < early.marginal_usd_per_hour < listed
    assert replace(quoted(100, 1), end_said_at=None) == early
    assert quoted(1, 100) == early
    assert quoted(100, 1).end_said_at == NOW
    assert quoted(100, 0).free_slots == 0


def test_the_prices_of_the_shipped_pools() -> None:
    offers = quote({})
    assert {name: str(offer.marginal_usd_per_hour) for name, offer in offers.items()} == {
        "reserved": "0",
        "spot": "0.0379",
        "on_demand": "0.1008",
        "partner": "0.006000",
    }
    assert offers["reserved"].effective_usd_per_hour == Decimal("0.0281")
    assert offers["partner"].effective_usd_per_hour == Decimal("0.058")


def test_a_small_task_fills_the_reserved_slots_first_and_then_the_minimum() -> None:
    small = replace(TRAIN, resources=Resources(cpus=1, memory_gib=1))
    assert taken({}, small) == "reserved"
    assert taken({"reserved": PoolUsage(leased_slots=2)}, small) == "partner"


def test_a_month_used_up_sends_the_task_to_spot() -> None:
    used_up = {"partner": PoolUsage(month_slot_hours=Decimal(200))}
    assert quote(used_up)["partner"].marginal_usd_per_hour == Decimal("0.07")
    assert taken({}) == "partner"
    assert taken(used_up) == "spot"


def test_a_spot_pool_that_just_took_its_capacity_back_is_left_alone() -> None:
    usage = {
        "partner": PoolUsage(leased_slots=1),
        "spot": PoolUsage(cooling_down=True),
    }
    assert taken(usage) == "on_demand"


def test_a_full_reserved_pool_can_be_waited_for_below_its_list_price() -> None:
    frugal = replace(
        TRAIN,
        resources=Resources(cpus=1, memory_gib=1),
        max_usd_per_hour=Decimal("0.001"),
    )
    full = {"reserved": PoolUsage(leased_slots=2)}
    decision = choose(frugal, quote(full, frugal).values(), NOW)
    assert not isinstance(decision, Placement)
    assert decision.can_wait


def test_an_offer_says_whose_law_its_machines_and_its_store_are_under() -> None:
    pool = replace(SHIPPED[0], shape=TRAIN.resources, jurisdiction="CH", architecture="arm64")
    (offer,) = make_offers(
        [pool], usage={}, free_slots={}, task=TRAIN, now=NOW, store_jurisdiction="EU",
        quota_slots={pool.name: 0},
    )  # fmt: skip
    assert (offer.jurisdiction, offer.store_jurisdiction) == ("CH", "EU")
    assert offer.architecture == "arm64"
    kept = replace(TRAIN, residency=frozenset({"CH", "EU"}), architectures=frozenset({"arm64"}))
    decision = choose(kept, [offer], NOW)
    assert isinstance(decision, Unplaced)
    assert decision.can_wait  # for its quota, and for nothing else


def test_a_pools_file_says_what_constraints_ask_for() -> None:
    section = PoolSection.model_validate(
        {
            "name": "slices",
            "backend": "local",
            "market": "on_demand",
            "slots": 2,
            "list_usd_per_hour": 1,
            "architecture": "arm64",
            "jurisdiction": "EU",
            "shape": {
                "cpus": 2,
                "memory_gib": 8,
                "accelerator": "H100",
                "accelerator_count": 1,
                "accelerator_memory_gib": 40,
                "accelerator_fraction": 0.5,
            },
        }
    )
    pool = section.to_pool()
    assert (pool.architecture, pool.jurisdiction) == ("arm64", "EU")
    assert pool.shape.accelerator_fraction == 0.5
    assert pool.shape.accelerator_memory_gib == 40


def test_a_gang_waits_for_a_pool_that_is_large_enough_and_passes_over_one_that_is_not() -> None:
    gang = replace(TRAIN, nodes=3)
    sizes = {pool.name: pool.slots for pool in SHIPPED}
    decision = choose(gang, quote({}, gang).values(), NOW)
    assert isinstance(decision, Placement)
    assert sizes[decision.offer.pool] >= 3
    alone = quote({})[decision.offer.pool]
    rented = decision.estimate.leased / timedelta(hours=1) * 3 * float(alone.marginal_usd_per_hour)
    assert float(decision.estimate.cost_usd) == pytest.approx(rented, rel=1e-3)
    full = {pool.name: PoolUsage(leased_slots=pool.slots - 2) for pool in SHIPPED}
    nowhere = choose(gang, quote(full, gang).values(), NOW)
    assert isinstance(nowhere, Unplaced)
    waits = {passed.offer.pool: passed.can_wait for passed in nowhere.passed_over}
    assert waits == {name: slots >= 3 for name, slots in sizes.items()}
