"""The command: what it reads, what it prints, and what it says of input that is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from conftest import require
from spillway.catalog.pools_file import load_pools
from spillway.cli import main
from spillway.ledger import Ledger
from spillway.model import JobEvent
from spillway.sim.command import POLICIES
from spillway.sim.price_files import read_prices
from spillway.sim.trace_files import read_traces
from spillway.testing.ledger_samples import NOON, sample_request, sample_task

SHARED = Path(__file__).parents[3] / "shared"
POOLS = """\
pools:
  - {name: spot, backend: local, market: spot, slots: 2, shape: {cpus: 4, memory_gib: 8}, list_usd_per_hour: 1.0, region: us-east-1,
     preemptions_per_hour: 0.2}
  - {name: always, backend: local, market: on_demand, slots: 4, shape: {cpus: 4, memory_gib: 8}, list_usd_per_hour: 3.0}
"""
RECORDED_POOLS = """\
pools:
  - {name: east, backend: local, market: spot, slots: 4, shape: {cpus: 4, memory_gib: 8}, list_usd_per_hour: 0.68, region: eastus}
  - {name: south, backend: local, market: spot, slots: 4, shape: {cpus: 4, memory_gib: 8}, list_usd_per_hour: 0.97, region: uksouth}
  - {name: always, backend: local, market: on_demand, slots: 12, shape: {cpus: 4, memory_gib: 8}, list_usd_per_hour: 3.67}
"""
JOBS = """\
name,arrives_at,work_hours,deadline_hours,checkpoints
first,2026-10-02T08:00Z,2,6,true
second,2026-10-03,1.5,,false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pools.yaml").write_text(POOLS)
    (tmp_path / "jobs.csv").write_text(JOBS)
    return tmp_path


def simulate(folder: Path, *more: str) -> int:
    return main(
        ["simulate", "--pools", str(folder / "pools.yaml"), "--tables", str(folder / "t"), *more]
    )


def test_it_compares_the_policies_in_one_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(folder, "--jobs", str(folder / "jobs.csv")) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == "2 jobs, 3.5 h of work, 2 pools, 2026-10-01 to 2026-11-01"
    names = [line.split()[0] for line in lines[3:8]]
    assert names == [
        "on_demand",
        "cheapest_per_hour",
        "greedy_spot",
        "uniform_progress",
        "spillway",
    ]


def test_json_is_the_same_each_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for _ in range(2):
        assert (
            simulate(folder, "--synthetic", "30", "--month", "2026-10", "--seed", "4", "--json")
            == 0
        )
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    document = json.loads(told[0])
    assert document["jobs"] == 30
    first = document["policies"][0]
    assert Decimal(first["bill_usd"]) == Decimal(first["added_usd"]) + Decimal(first["owed_usd"])


def test_jobs_may_be_json_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"arrives_at": "2026-10-05T00:00Z", "work_hours": 3, "markets": "on_demand", "cpus": 2}
    (folder / "jobs.jsonl").write_text(json.dumps(row) + "\n")
    assert simulate(folder, "--jobs", str(folder / "jobs.jsonl"), "--json") == 0
    policies = json.loads(capsys.readouterr().out)["policies"]
    # Three hours of work and five seconds to begin, at 3 dollars.
    assert {one["added_usd"] for one in policies} == {"9.004167"}


@pytest.mark.parametrize(
    ("arguments", "text", "says"),
    [
        (["--jobs", "{}/none.csv"], None, "none.csv: there is no such file"),
        (["--jobs", "{}/bad.csv"], "arrives_at,hours\n2026-10-01,1\n", "bad.csv:2: has no work_hours"),
        (["--jobs", "{}/bad.csv"], "arrives_at,work_hours\n", "bad.csv: has no rows"),
        (["--jobs", "{}/bad.csv"], "arrives_at,work_hours,gpus\n2026-10-01,1,2\n", "gpus: there is no such column"),
        (["--jobs", "{}/bad.csv"], "arrives_at,work_hours\nsoon,1\n", "bad.csv:2: arrives_at"),
        (["--jobs", "{}/bad.csv"], "arrives_at,work_hours,cpus\n2026-10-01,1,64\n", "no pool could ever take it"),
        (["--jobs", "{}/jobs.csv", "--month", "2026-09"], None, "choose another --month"),
        (["--jobs", "{}/jobs.csv", "--month", "October"], None, "write it like 2026-10"),
        (["--jobs", "{}/jobs.csv", "--traces", "{}/bad.csv"], "at,pool,slots\n2026-10-01,moon,1\n", "pool 'moon' is not in the pools file"),
        (["--jobs", "{}/jobs.csv", "--policies", "best"], None, "--policies best: there is on_demand"),
        (["--jobs", "{}/jobs.csv", "--prices", "{}/bad.csv"], "at,pool,usd_per_hour\n2026-10-01,spot,x\n", "bad.csv:2: usd_per_hour 'x'"),
        (["--ledger", "sqlite:///{}/none.db"], None, "there is no ledger at"),
        (["--synthetic", "0"], None, "ask for at least one"),
    ],
)  # fmt: skip
def test_wrong_input_is_told_with_its_place_and_remedy(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str | None,
    says: str,
) -> None:
    if text is not None:
        (folder / "bad.csv").write_text(text)
    assert simulate(folder, *[one.format(folder) for one in arguments]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["nan", "0", "-1", "inf", "often"])
def test_a_time_between_looks_that_is_none_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], minutes: str
) -> None:
    with pytest.raises(SystemExit):
        simulate(folder, f"--look-minutes={minutes}")
    assert f"{minutes}: give a number above 0, of 1,440 at the most" in capsys.readouterr().err


def test_a_recording_is_played_over_and_over(folder: Path) -> None:
    path = folder / "spot.json"
    path.write_text(json.dumps({"gap_seconds": 3600, "slots": [1, 0, 0]}))
    (trace,) = read_traces([f"spot={path}"], ["spot", "always"])
    start = datetime(2026, 10, 1, tzinfo=UTC)
    steps = list(trace.over(start, start + timedelta(days=1), start + timedelta(hours=7)))
    hours = [((at - start) / timedelta(hours=1), slots) for at, slots in steps]
    assert hours == [(0, None), (1, 0), (3, None), (4, 0), (6, None)]


def test_prices_are_read_as_aws_prints_them(folder: Path) -> None:
    quotes = [
        {"AvailabilityZone": "us-east-1a", "InstanceType": "p3.2xlarge", "ProductDescription": what,
         "SpotPrice": price, "Timestamp": at}
        for what, price, at in (
            ("Linux/UNIX", "0.950000", "2026-10-09T04:00:00+00:00"),
            ("Windows", "1.500000", "2026-10-07T04:00:00+00:00"),
            ("Linux/UNIX", "0.910000", "2026-10-02T04:00:00+00:00"),
        )
    ]  # fmt: skip
    (folder / "aws.json").write_text(json.dumps({"SpotPriceHistory": quotes}))
    pools = load_pools(folder / "pools.yaml")
    start = datetime(2026, 10, 1, tzinfo=UTC)
    changes = read_prices([folder / "aws.json"], pools, {"spot": "p3.2xlarge/us-east-1a"}, start)
    assert [(one.pool, one.at.day, one.usd_per_hour) for one in changes] == [
        ("spot", 2, Decimal("0.91")),
        ("spot", 9, Decimal("0.95")),
    ]


def test_accelerators_and_machines_sold_apart_are_added_up(folder: Path) -> None:
    rows = """\
at,instance_type,accelerator,count,zone,on_demand_usd_h,spot_usd_h
2026-10-02,a2-highgpu-1g,,,us-central1-a,3.0,0.4
2026-10-03,,A100,1,us-central1-a,3.0,1.5
2026-10-04,a2-highgpu-1g,,,us-central1-a,3.0,0.5
2026-10-05,,A100,1,us-central1-a,3.0,1.25
2026-10-06,a2-highgpu-1g,,,us-central1-a,3.0,
2026-10-06,a4-highgpu-8g,,,us-central1-a,0.0,0.0
"""
    (folder / "gcp.csv").write_text(rows)
    pools = load_pools(folder / "pools.yaml")
    start = datetime(2026, 10, 1, tzinfo=UTC)
    both = {"spot": "a2-highgpu-1g/us-central1-a+A100 x1/us-central1-a"}
    changes = read_prices([folder / "gcp.csv"], pools, both, start)
    assert [(one.at.day, one.usd_per_hour) for one in changes] == [
        (3, Decimal("1.9")),
        (4, Decimal("2.0")),
        (5, Decimal("1.75")),
    ]


def test_every_policy_plays_recorded_capacity_and_prices(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = sorted((SHARED / "catalog" / "spot_history").glob("*.csv"))
    traces = SHARED / "traces" / "ping-2022-10-26"
    require(bool(history) and traces.is_dir(), "no recordings lie in ../shared")
    (folder / "pools.yaml").write_text(RECORDED_POOLS)
    found = simulate(
        folder,
        *("--synthetic", "60", "--seed", "7", "--month", "2026-05", "--json"),
        *("--prices", *map(str, history), "--series"),
        "east=Standard_NC24ads_A100_v4/eastus",
        "south=Standard_NC24ads_A100_v4/uksouth",
        "--traces",
        f"east={traces / 'us-west-2a_v100_1.json'}",
        f"south={traces / 'us-west-2b_v100_1.json'}",
    )
    assert found == 0
    document = json.loads(capsys.readouterr().out)
    assert document["notes"] == [
        f"capacity of {pool}: recorded at another time, played over and over"
        for pool in ("east", "south")
    ]
    by_policy = {one["policy"]: one for one in document["policies"]}
    assert set(by_policy) == set(POLICIES)
    on_demand, ours = by_policy["on_demand"], by_policy["spillway"]
    for name in set(POLICIES) - {"on_demand"}:
        one = by_policy[name]
        assert (one["late"], one["unfinished"]) == (0, 0)
        assert one["preemptions"] > 0
        assert Decimal(one["added_usd"]) < Decimal(on_demand["added_usd"])
        east, south, _ = one["pools"]
        # At first 0.68 $ and 0.97 $, from the second day on more, and for hours up to half as much again or twice.
        assert 0.70 < float(east["added_usd"]) / east["slot_hours"] < 0.80
        assert 1.00 < float(south["added_usd"]) / south["slot_hours"] < 1.10
    assert Decimal(ours["added_usd"]) < Decimal(by_policy["uniform_progress"]["added_usd"])


def test_last_months_leases_come_again_as_jobs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{folder / 'ledger.db'}"
    ledger = Ledger.open(url)
    for name, event in (("train", JobEvent.SUCCEEDED), ("score", JobEvent.FAILED)):
        lease = ledger.grant(sample_request(sample_task(name)), slots=2, now=NOON)
        ledger.record(lease.key, JobEvent.STARTED, now=NOON)
        over = NOON + timedelta(hours=2, seconds=5)
        ledger.record(lease.key, event, now=over)
        ledger.end(lease.key, now=over)
    ledger.close()
    assert (
        simulate(folder, "--ledger", url, "--month", "2026-03", "--policies", "on_demand", "--json")
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["jobs"] == 2
    # Two hours that one showed, and the hour that the other, which failed, was reckoned with; five
    # seconds to begin each, and a second for the one checkpoint within two hours.
    assert float(document["policies"][0]["added_usd"]) == pytest.approx(3 * (3 + 11 / 3600))
    assert simulate(folder, "--ledger", url, "--month", "2026-04") == 1
    assert "no lease granted from 2026-04-01" in capsys.readouterr().err
