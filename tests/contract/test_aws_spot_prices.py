"""Spot prices, asked for over the wire and put into a price list that the catalogue reads."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from spillway.backends.aws.spot_prices import main
from spillway.catalog.price_list import read_price_list
from spillway.errors import AccessError, SpecError
from spillway.testing.aws_market import ACCESS_KEY, REGION, SECRET_KEY, aws_market

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spillway.testing.aws_market import AwsMarket

HEADER = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone"
ROWS = [
    f"p5.48xlarge,H100,8,192,2048,55.04,1.00,{REGION},{REGION}a",
    f"p5.48xlarge,H100,8,192,2048,55.04,1.00,{REGION},{REGION}b",
    "p5.48xlarge,H100,8,192,2048,60.00,2.00,eu-west-1,eu-west-1a",
]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMarket]:
    with aws_market(tmp_path_factory.mktemp("aws")) as market:
        yield market


@pytest.fixture
def prices(market: AwsMarket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_ENDPOINT_URL", market.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    market.spot_prices = {"p5.48xlarge": "21.500000"}
    market.allow_all()
    path = tmp_path / "aws.csv"
    path.write_text("\n".join([HEADER, *ROWS]) + "\n")
    return path


def test_a_list_gets_the_prices_of_now_and_none_where_there_are_none(
    prices: Path, tmp_path: Path
) -> None:
    out = tmp_path / "now.csv"
    assert main([str(prices), str(out), "--region", REGION]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["AvailabilityZone"], row["SpotPrice"]) for row in rows] == [
        (f"{REGION}a", "21.500000"),
        (f"{REGION}b", ""),
    ]
    assert read_price_list(out, "aws").spot[0] == 21.5


def test_a_failed_question_leaves_the_list_as_it_is(prices: Path, market: AwsMarket) -> None:
    before = prices.read_text()
    market.deny("ec2:DescribeSpotPriceHistory")
    with pytest.raises(AccessError, match="ec2:DescribeSpotPriceHistory"):
        main([str(prices), str(prices), "--region", REGION])
    assert prices.read_text() == before


def test_a_region_that_the_list_has_nothing_of_is_told(prices: Path) -> None:
    with pytest.raises(SpecError, match="nothing of mars-1"):
        main([str(prices), str(prices), "--region", "mars-1"])
