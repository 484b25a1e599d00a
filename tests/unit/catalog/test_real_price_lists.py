"""Price lists as providers really publish them: the wrong rows are found, and hardly any other is doubted.

They are reference data that lies beside a development tree and is not part of the project; without it, there is nothing to
show here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from conftest import require
from spillway.catalog.catalogue import Quoted, make_catalogue, quoted
from spillway.catalog.price_list import PriceList, read_price_list
from spillway.model import Market, Resources, TaskSpec
from spillway.placement.sanity import Doubt
from spillway.placement.table_choice import choose_from

if TYPE_CHECKING:
    from spillway.placement.offer_table import OfferTable

REFERENCE = Path(__file__).parents[4] / "shared" / "catalog"
NOW = datetime(2026, 5, 21, tzinfo=UTC)


@pytest.fixture(scope="module")
def lists() -> dict[str, PriceList]:
    require(REFERENCE.is_dir(), "no reference price lists lie in ../shared/catalog")
    listed = {
        provider: read_price_list(REFERENCE / "skypilot-schema" / provider / "vms.csv", provider)
        for provider in ("gcp", "azure", "lambda", "vast")
    }
    return {**listed, "aws": read_price_list(REFERENCE / "aws_gpu_rows.csv", "aws")}


@pytest.fixture(scope="module")
def quotes(lists: dict[str, PriceList]) -> dict[str, Quoted]:
    return {provider: quoted(listed) for provider, listed in lists.items()}


@pytest.fixture(scope="module")
def table(lists: dict[str, PriceList]) -> OfferTable:
    return make_catalogue(lists.values())


def of(one: Quoted, **wanted: object) -> np.ndarray:
    """Return which nodes have the wanted values."""
    chosen = np.ones(len(one.nodes), dtype=bool)
    for column, value in wanted.items():
        chosen &= getattr(one.nodes, column) == value
    assert chosen.any(), wanted
    return chosen


def test_a_tpu_at_700_dollars_is_doubted(quotes: dict[str, Quoted]) -> None:
    google = quotes["gcp"]
    wrong = of(google, accelerator="tpu-v6e", zone="southamerica-west1-a", spot=700.0)
    assert (google.spot_doubts[wrong] > 0).all()


def test_nodes_with_a_machine_at_nothing_are_doubted(quotes: dict[str, Quoted]) -> None:
    google = quotes["gcp"]
    wrong = of(google, instance="a4-highgpu-8g")
    assert (google.on_demand_doubts[wrong] & Doubt.NO_PRICE > 0).all()
    assert (google.spot_doubts[wrong] & Doubt.NO_PRICE > 0).all()


@pytest.mark.parametrize("region", ["us-central1", "us-west1"])
def test_an_h100_node_at_half_its_list_price_is_doubted(
    region: str, quotes: dict[str, Quoted]
) -> None:
    google = quotes["gcp"]
    wrong = of(google, instance="a3-highgpu-8g", region=region)
    assert np.allclose(google.nodes.on_demand[wrong], 43.07, atol=0.01)
    assert (google.on_demand_doubts[wrong] & Doubt.LOW_FOR_ITS_KIND > 0).all()


def test_every_h100_node_far_above_the_others_is_doubted(quotes: dict[str, Quoted]) -> None:
    azure = quotes["azure"]
    alike = of(azure, instance="Standard_ND96isr_H100_v5")
    # Most regions ask 98 to 152 dollars; what is above is wrong, wherever it is.
    wrong = alike & (azure.nodes.on_demand > 160)
    assert set(azure.nodes.region[wrong]) == {"southafricanorth", "southafricawest"}
    assert azure.nodes.on_demand[wrong].max() > 186
    assert (azure.on_demand_doubts[wrong] > 0).all()
    assert (azure.on_demand_doubts[alike & ~wrong] == 0).all()


@pytest.mark.parametrize(
    ("machine", "rows"),
    [("Standard_ND96isr_H200_v5", 28), ("Standard_ND128isr_NDR_GB200_v6", 19)],
)
def test_every_node_that_asks_the_list_price_on_spot_is_doubted(
    machine: str, rows: int, quotes: dict[str, Quoted]
) -> None:
    azure = quotes["azure"]
    wrong = of(azure, instance=machine)
    assert wrong.sum() == rows
    assert (azure.spot_doubts[wrong] & Doubt.SPOT_IS_LIST > 0).all()


@pytest.mark.parametrize(
    ("machine", "zones"),
    [
        ("p4d.24xlarge", {"aps1-az3", "cac1-az1", "euc1-az2"}),
        ("p4de.24xlarge", {"apse1-az3", "euc1-az1", "euc1-az2"}),
        ("p5.48xlarge", {"apse2-az1", "apse2-az2", "cac1-az4", "use1-az1", "use1-az4"}),
    ],
)
def test_every_zone_that_asks_the_list_price_on_spot_is_doubted(
    machine: str, zones: set[str], quotes: dict[str, Quoted]
) -> None:
    aws = quotes["aws"]
    doubted = of(aws, instance=machine) & (aws.spot_doubts & Doubt.SPOT_IS_LIST > 0)
    assert set(aws.nodes.zone[doubted]) == zones


def test_spot_at_the_list_price_or_a_tenth_of_it_is_doubted(quotes: dict[str, Quoted]) -> None:
    equal = 0
    for one in quotes.values():
        with np.errstate(invalid="ignore"):
            share = one.nodes.spot / one.nodes.on_demand
        wrong = (np.abs(share - 1) < 1e-4) | (np.abs(share - 0.1) < 1e-6)
        assert (one.spot_doubts[wrong] > 0).all()
        equal += int(wrong.sum())
    assert equal > 60
    aws = quotes["aws"]
    tenth = of(aws, instance="p5.48xlarge", region="ap-southeast-3")
    assert (aws.spot_doubts[tenth] & Doubt.SPOT_IS_TENTH > 0).all()


@pytest.mark.parametrize("provider", ["gcp", "azure", "aws", "lambda", "vast"])
def test_hardly_any_plausible_row_is_doubted(provider: str, quotes: dict[str, Quoted]) -> None:
    one = quotes[provider]
    # What is wrong by itself is no plausible row: nothing, and spot at the list price or a tenth of it.
    by_itself = Doubt.NO_PRICE | Doubt.SPOT_IS_LIST | Doubt.SPOT_IS_TENTH
    either = one.on_demand_doubts | one.spot_doubts
    plausible = either & by_itself == 0
    assert (either[plausible] > 0).sum() <= 0.01 * len(one.nodes)


@pytest.mark.parametrize(
    ("accelerator", "market", "lowest"),
    [
        ("H100", Market.ON_DEMAND, 50),
        ("H100", Market.SPOT, 8),
        ("H200", Market.ON_DEMAND, 80),
        ("tpu-v6e", Market.SPOT, 2),
    ],
)
def test_no_placement_rests_on_a_wrong_price(
    accelerator: str, market: Market, lowest: int, table: OfferTable
) -> None:
    task = TaskSpec(
        entry_point="package.module:train",
        resources=Resources(accelerator=accelerator, accelerator_count=8),
        work=timedelta(hours=8),
        checkpoints=True,
        markets=frozenset({market}),
        providers=frozenset({"aws", "gcp", "azure"}),
    )
    offer = choose_from(table, task, NOW).offer
    assert offer is not None
    assert offer.price_doubts == ()
    assert offer.marginal_usd_per_hour >= Decimal(lowest)
