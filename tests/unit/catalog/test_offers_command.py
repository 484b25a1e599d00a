"""`spillway offers`: what price lists have for a task, as a table, as JSON and as pools that the pools file takes."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
import yaml

from spillway.catalog.pools_file import load_pools
from spillway.cli import main
from spillway.model import Market

if TYPE_CHECKING:
    from pathlib import Path

LIST = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone
small,,,2,8,0.10,0.03,us-east-1,us-east-1a
small,,,2,8,0.11,,us-east-1,us-east-1b
large,H100,8,192,2048,55.0,20.0,us-east-1,us-east-1a
large,H100,8,192,2048,55.0,5.5,eu-west-1,eu-west-1a
"""


@pytest.fixture
def prices(tmp_path: Path) -> str:
    path = tmp_path / "prices.csv"
    path.write_text(LIST)
    return f"aws={path}"


def test_offers_are_listed_cheapest_first(prices: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["offers", prices, "--cpus", "2", "--hours", "10", "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "expected",
        "$",
        "hours",
        "$/hour",
        "market",
        "provider",
        "machine",
        "place",
    ]
    assert [line.split()[2:] for line in lines[1:4]] == [
        ["0.0300", "spot", "aws", "small", "us-east-1a"],
        ["0.1000", "on_demand", "aws", "small", "us-east-1a"],
        ["0.1100", "on_demand", "aws", "small", "us-east-1b"],
    ]
    costs = [float(line.split()[0]) for line in lines[1:4]]
    assert costs == sorted(costs)
    assert lines[-1] == (
        "3 of 7 offers. 1 cannot win, for their price looks wrong beside the others."
    )


def test_a_doubtful_price_is_not_the_cheapest(
    prices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["offers", prices, "--accelerator", "H100", "--count", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["zone"], one["market"]) for one in found] == [
        ("us-east-1a", "spot"),
        ("eu-west-1a", "on_demand"),
        ("us-east-1a", "on_demand"),
    ]
    assert found[0]["usd_per_hour"] == 20
    assert found[0]["leased_hours"] > 1
    assert found[0]["expected_usd"] > 20


def test_a_deadline_puts_what_comes_in_time_first(
    prices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--hours", "10", "--deadline-hours", "10.2", "--no-checkpoints", "--json"]
    rate = ["--preemptions-per-hour", "1"]
    assert main(["offers", prices, *wanted, *rate]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["market"] for one in found][:2] == ["on_demand", "on_demand"]


def test_markets_regions_and_nodes_are_kept(
    prices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--markets", "on_demand", "--regions", "eu-*", "--nodes", "2", "--json"]
    assert main(["offers", prices, *wanted]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["region"], one["machine"]) == ("eu-west-1", "large")
    assert one["expected_usd"] > 2 * 55 * 0.99


def test_pools_are_ones_that_the_pools_file_takes(
    prices: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["offers", prices, "--accelerator", "H100", "--count", "8", "--pools"]) == 0
    path = tmp_path / "pools.yaml"
    path.write_text(capsys.readouterr().out)
    pools = load_pools(path)
    assert [pool.name for pool in pools] == [
        "aws-large-us-east-1a-spot",
        "aws-large-eu-west-1a-on_demand",
        "aws-large-us-east-1a-on_demand",
    ]
    spot = pools[0]
    assert (spot.market, spot.list_usd_per_hour) == (Market.SPOT, Decimal("20.0"))
    assert spot.options["instance_type"] == "large"
    assert spot.shape.accelerator_count == 8


def test_tasks_beyond_the_machines_of_the_cheapest_place_go_to_the_next(
    prices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five tasks where two machines of a kind can be had in a place: two on spot, two and one on demand."""
    wanted = ["--cpus", "2", "--tasks", "5", "--machines", "2"]
    assert main(["offers", prices, *wanted]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["tasks", "expected", "$"]
    assert [(line.split()[0], *line.split()[4:]) for line in lines[1:4]] == [
        ("2", "spot", "aws", "small", "us-east-1a"),
        ("2", "on_demand", "aws", "small", "us-east-1a"),
        ("1", "on_demand", "aws", "small", "us-east-1b"),
    ]


def test_pools_for_several_gangs_have_a_slot_for_each_machine(
    prices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--cpus", "2", "--tasks", "2", "--nodes", "3", "--machines", "6", "--pools"]
    assert main(["offers", prices, *wanted]) == 0
    (pool,) = yaml.safe_load(capsys.readouterr().out)["pools"]
    assert (pool["market"], pool["slots"]) == ("spot", 6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prices.csv"], "prices.csv: write PROVIDER=FILE"),
        (["aws=nowhere.csv"], "cannot read price list nowhere.csv: No such file"),
        (["LIST", "--markets", "sport"], "--markets sport: there is reserved, spot"),
        (["LIST", "--count", "8"], "--count 8: of what? name it too, such as --accelerator H100"),
        (["LIST", "--accelerator", "H1000"], "3 times: has H100, not H1000"),
        (["LIST", "--markets", "reserved"], "none of 7 offers would do"),
        (["LIST", "--markets", "reserved", "--tasks", "2"], "none of 7 offers would do"),
        (["LIST", "--cpus", "2", "--tasks", "9"], "3 of 9 tasks find no machine; raise --machines"),
    ],
)
def test_mistakes_are_said_with_a_remedy(
    arguments: list[str], said: str, prices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [prices if word == "LIST" else word for word in arguments]
    assert main(["offers", *wanted]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--hours=nan", "a number above 0, of 87,600 at the most"),
        ("--hours=-1", "a number above 0, of 87,600 at the most"),
        ("--deadline-hours=1e12", "a number above 0, of 87,600 at the most"),
        ("--cpus=nan", "a number from 0 on"),
        ("--memory-gib=-5", "a number from 0 on"),
        ("--preemptions-per-hour=-1", "a number from 0 on"),
        ("--preemptions-per-hour=inf", "a number from 0 on"),
        ("--top=-3", "a whole number from 1 on"),
        ("--tasks=0", "a whole number from 1 on"),
        ("--nodes=two", "a whole number from 1 on"),
        ("--machines=0", "a whole number from 1 on"),
        ("--count=0", "a whole number from 1 on"),
    ],
)
def test_numbers_that_nobody_can_mean_are_refused(
    option: str, said: str, prices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["offers", prices, option])
    name, _, value = option.partition("=")
    assert f"argument {name}: {value}: give {said}" in capsys.readouterr().err


def test_a_file_that_is_no_text_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prices.csv").write_bytes(b"\xff\xfe\x00")
    assert main(["offers", f"aws={tmp_path}/prices.csv"]) == 1
    assert "is no comma-separated text in UTF-8" in capsys.readouterr().err
