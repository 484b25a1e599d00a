"""Egress and storage: what moving a task's state costs by provider pair and region."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.model import Market, Offer, Placement, TaskSpec
from spillway.placement.availability_prior import prior
from spillway.placement.choose import choose
from spillway.placement.estimate import estimate
from spillway.placement.over_time import pool_views
from spillway.placement.policy import decide, table_spec
from spillway.placement.policy_values import JobProgress, PolicyState, PoolView
from spillway.placement.transfer import (
    EGRESS,
    FAR_GIB_PER_SECOND,
    STORAGE_USD_PER_GIB_MONTH,
    Place,
    PriceZone,
    egress_usd_per_gib,
    price_zone,
    restore_time,
    with_transfer_prices,
)
from spillway.placement.value_table import build_table
from spillway.testing.strategies import offers, tasks, transfer_prices

VIRGINIA = Place(provider="aws", region="us-east-1")
PLACES = st.builds(
    Place,
    provider=st.sampled_from([*EGRESS, "slurm", "local"]),
    region=st.sampled_from(["us-east-1", "europe-west4", "brazilsouth", "moon-1", "asia-east1"]),
)


@pytest.mark.parametrize(
    ("source", "target", "usd_per_gib"),
    [
        (("aws", "us-east-1"), ("aws", "us-east-1"), "0"),
        (("aws", "us-east-1"), ("aws", "eu-west-1"), "0.02"),
        (("aws", "ap-northeast-1"), ("aws", "us-east-1"), "0.09"),
        (("aws", "us-east-1"), ("gcp", "us-east4"), "0.09"),
        (("gcp", "us-east4"), ("gcp", "northamerica-northeast1"), "0.02"),
        (("gcp", "us-east4"), ("gcp", "europe-west4"), "0.05"),
        (("gcp", "europe-west4"), ("aws", "eu-west-1"), "0.12"),
        (("azure", "westeurope"), ("azure", "swedencentral"), "0.02"),
        (("azure", "brazilsouth"), ("azure", "eastus"), "0.16"),
        (("lambda", "us-east-1"), ("aws", "us-east-1"), "0"),
        (("slurm", "basement"), ("aws", "us-east-1"), "0"),
        (("aws", "us-east-1"), ("slurm", "basement"), "0.09"),
        (("aws", "moon-1"), ("aws", "us-east-1"), "0.147"),  # the dearest, for want of knowing
        (("aws", "moon-1"), ("gcp", "us-east4"), "0.154"),
    ],
)
def test_egress_is_charged_by_where_it_leaves_and_where_it_goes(
    source: tuple[str, str], target: tuple[str, str], usd_per_gib: str
) -> None:
    asked = [Place(provider=provider, region=region) for provider, region in (source, target)]
    assert egress_usd_per_gib(*asked) == Decimal(usd_per_gib)


@pytest.mark.parametrize(
    ("region", "zone"),
    [
        ("us-east-1", PriceZone.NORTH_AMERICA),
        ("northamerica-northeast2", PriceZone.NORTH_AMERICA),
        ("westus2", PriceZone.NORTH_AMERICA),
        ("canadacentral", PriceZone.NORTH_AMERICA),
        ("mexicocentral", PriceZone.NORTH_AMERICA),
        ("southcentralus", PriceZone.NORTH_AMERICA),
        ("australiaeast", PriceZone.ASIA_PACIFIC),
        ("australia-southeast1", PriceZone.ASIA_PACIFIC),
        ("ap-southeast-3", PriceZone.ASIA_PACIFIC),
        ("centralindia", PriceZone.ASIA_PACIFIC),
        ("northeurope", PriceZone.EUROPE),
        ("uksouth", PriceZone.EUROPE),
        ("europe-west4", PriceZone.EUROPE),
        ("austriaeast", PriceZone.EUROPE),
        ("southamerica-west1", PriceZone.SOUTH_AMERICA),
        ("sa-east-1", PriceZone.SOUTH_AMERICA),
        ("southafricanorth", PriceZone.MIDDLE_EAST_AFRICA),
        ("me-central2", PriceZone.MIDDLE_EAST_AFRICA),
        ("local", None),
    ],
)
def test_the_part_of_the_world_is_told_from_a_region_s_name(
    region: str, zone: PriceZone | None
) -> None:
    assert price_zone(region) is zone


@given(PLACES, PLACES)
def test_egress_is_never_negative_nor_past_a_quarter(source: Place, target: Place) -> None:
    assert 0 <= egress_usd_per_gib(source, target) <= Decimal("0.25")


@given(PLACES)
def test_what_stays_where_it_is_moves_for_nothing(place: Place) -> None:
    assert egress_usd_per_gib(place, place) == 0


@given(tasks(), offers(usd_per_gib=transfer_prices()))
def test_the_cost_is_rent_and_transfer(task: TaskSpec, offer: Offer) -> None:
    nowhere = replace(
        offer,
        restore_usd_per_gib=Decimal(0),
        save_usd_per_gib=Decimal(0),
        storage_usd_per_gib_month=Decimal(0),
    )
    with_moving, without = estimate(task, offer), estimate(task, nowhere)
    assert without.transfer_usd == 0
    moved = with_moving.cost_usd - without.cost_usd
    assert abs(moved - with_moving.transfer_usd) <= Decimal("0.000001")


def test_a_cheap_pool_across_the_world_loses_to_a_dearer_one_beside_the_store(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    training = replace(
        task, work=timedelta(hours=24), checkpoint_write=timedelta(minutes=1), state_gib=200.0
    )
    here = replace(offer, pool="here", provider="aws", region="us-east-1")
    far = replace(
        offer,
        pool="far",
        provider="gcp",
        region="asia-east1",
        marginal_usd_per_hour=offer.marginal_usd_per_hour / 2,
    )
    light = replace(training, state_gib=0.0)

    def taken(spec: TaskSpec) -> str:
        placed = choose(spec, with_transfer_prices([here, far], VIRGINIA), now)
        assert isinstance(placed, Placement)
        return placed.offer.pool

    assert (taken(light), taken(training)) == ("far", "here")


def test_where_the_provider_is_not_told_the_backend_is_it(offer: Offer) -> None:
    (priced,) = with_transfer_prices([replace(offer, backend="gcp", region="us-east4")], VIRGINIA)
    assert priced.save_usd_per_gib == Decimal("0.12")
    assert priced.restore_usd_per_gib == Decimal("0.09")
    assert priced.storage_usd_per_gib_month == STORAGE_USD_PER_GIB_MONTH["aws"]


@pytest.mark.parametrize(
    ("provider", "region", "is_far"),
    [
        ("aws", "us-east-1", False),
        ("aws", "us-west-2", True),
        ("lambda", "us-east-1", True),  # whether or not it costs anything
    ],
)
def test_reading_from_another_place_takes_time(
    offer: Offer, provider: str, region: str, is_far: bool
) -> None:
    (there,) = with_transfer_prices([replace(offer, provider=provider, region=region)], VIRGINIA)
    longer = restore_time(200.0, there)
    assert longer == (timedelta(seconds=200 / FAR_GIB_PER_SECOND) if is_far else timedelta(0))
    assert restore_time(0.0, there) == timedelta(0)


def test_where_the_store_is_not_told_nothing_is_far(offer: Offer) -> None:
    assert restore_time(200.0, offer) == timedelta(0)


def test_a_far_pool_is_left_alone_once_the_state_could_not_be_read_there_in_time(
    offer: Offer, now: datetime
) -> None:
    # 25 minutes of slack, and the state of 1 TiB takes 29.
    here = replace(offer, pool="here", provider="aws", region="us-east-1")
    far = replace(offer, pool="overseas", provider="aws", region="us-west-2")
    usable = [(one, True) for one in with_transfer_prices([here, far], VIRGINIA)]
    task = TaskSpec(entry_point="package:work")
    views = pool_views(task, usable, moved_gib=1024.0)
    job = JobProgress(
        work_left=timedelta(hours=2),
        deadline=now + timedelta(hours=2, minutes=25),
        restart_overhead=timedelta(0),
        next_look=timedelta(minutes=1),
    )

    def in_time(views: tuple[PoolView, ...]) -> dict[str | None, bool]:
        table = build_table(table_spec(job, views, now), prior(1))
        decision, _ = decide(job, views, now, PolicyState(), table=table, model=prior(1))
        return {option.pool: option.in_time for option in decision.options}

    assert in_time(views) == {None: True, "here": True, "overseas": False}
    assert in_time(pool_views(task, usable)) == {None: True, "here": True, "overseas": True}


def simulated_usd(rng: random.Random, task: TaskSpec, offer: Offer, segments: int) -> float:
    """Run segment by segment, losing machines at random, and add up the three bills."""
    hour = timedelta(hours=1)
    restart = (offer.restart_overhead + task.restart_overhead) / hour
    segment = task.work / segments / hour + task.checkpoint_write / hour
    clock, starts = restart, 1
    for _ in range(segments):
        while (alive := rng.expovariate(offer.preemptions_per_hour or 0)) < segment:
            clock += alive + restart
            starts += 1
        clock += segment
    rented = clock * float(offer.marginal_usd_per_hour)
    read = starts * (task.state_gib + task.input_gib) * float(offer.restore_usd_per_gib)
    written = segments * task.state_gib * float(offer.save_usd_per_gib)
    kept = 2 * task.state_gib * clock / 730 * float(offer.storage_usd_per_gib_month)
    return rented + read + written + kept


@pytest.mark.parametrize(
    ("hazard", "state_gib", "input_gib"), [(0.02, 10, 0), (0.5, 40, 100), (2.0, 0, 5)]
)
def test_a_simulation_of_the_bills_agrees_within_its_error(
    task: TaskSpec, offer: Offer, hazard: float, state_gib: float, input_gib: float
) -> None:
    spot = replace(
        offer,
        market=Market.SPOT,
        preemptions_per_hour=hazard,
        marginal_usd_per_hour=Decimal("3.20"),
        restart_overhead=timedelta(minutes=6),
        restore_usd_per_gib=Decimal("0.09"),
        save_usd_per_gib=Decimal("0.02"),
        storage_usd_per_gib_month=Decimal("0.023"),
    )
    training = replace(
        task,
        work=timedelta(hours=20),
        checkpoint_write=timedelta(seconds=90),
        restart_overhead=timedelta(minutes=2),
        state_gib=state_gib,
        input_gib=input_gib,
    )
    interval = estimate(training, spot).checkpoint_interval
    assert interval is not None
    segments = round(training.work / interval)
    # Whole segments, so that the simulation and the formula run the same course.
    whole = replace(training, work=segments * interval)
    bills = [simulated_usd(rng, whole, spot, segments) for rng in [random.Random(5)] * 4000]
    error = statistics.stdev(bills) / len(bills) ** 0.5
    assert abs(statistics.fmean(bills) - float(estimate(whole, spot).cost_usd)) < 4 * error
