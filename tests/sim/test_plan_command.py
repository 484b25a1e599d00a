"""`spillway plan`: a set of jobs over a contract, together and one after the other, and what it says of input that is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from spillway.cli import main
from spillway.ledger import Ledger
from spillway.model import JobEvent
from spillway.testing.ledger_samples import sample_request

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 10, 12, 9, tzinfo=UTC)
POOLS = """\
pools:
  - {name: contract, backend: local, market: partner, slots: 9, shape: {cpus: 4, memory_gib: 8}, list_usd_per_hour: 3.0,
     commitment: {kind: monthly_minimum, slot_hours: 10, usd_per_slot_hour: 1.0, overage_usd_per_slot_hour: 3.0}}
  - {name: always, backend: local, market: on_demand, slots: 9, shape: {cpus: 4, memory_gib: 8}, list_usd_per_hour: 2.0}
"""
JOBS = """\
name,work_hours,restart_seconds
long,6,0
first,5,0
second,5,0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pools.yaml").write_text(POOLS)
    (tmp_path / "jobs.csv").write_text(JOBS)
    return tmp_path


def plan(folder: Path, *more: str) -> int:
    files = ["--pools", str(folder / "pools.yaml"), "--jobs", str(folder / "jobs.csv")]
    return main(["plan", *files, "--at", f"{NOW:%Y-%m-%dT%H:%MZ}", *more])


def planned(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    plan(folder, "--json", *more)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_contract_goes_to_the_jobs_that_fill_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The long job would take six of ten hours that are paid for, and the others would need eleven of what is left."""
    assert plan(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["long", "1", "6.00", "always", "contract"],
        ["first", "1", "5.00", "contract", "the", "same"],
        ["second", "1", "5.00", "contract", "always"],
    ]
    assert lines[5] == "Together 3 jobs add $12.00 to the bill: no other way adds less."
    assert lines[6] == "One after the other, as listed, they add $1.00 more."


def test_a_plan_is_never_dearer_than_one_after_the_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = Random(7)
    (folder / "pools.yaml").write_text(
        POOLS.replace("slots: 9", "slots: 60")
        .replace("name: contract", "name: contract, speed: 0.5")
        .replace("slot_hours: 10", "slot_hours: 60")
        + "  - {name: free, backend: local, market: reserved, slots: 4, shape: {cpus: 2, memory_gib: 8},\n"
        "     list_usd_per_hour: 1.0, commitment: {kind: hourly, usd_per_slot_hour: 0.5}}\n"
    )
    rows = [f"{drawn.choice([1, 2, 5, 9])},{drawn.choice([1, 3])},0\n" for _ in range(40)]
    (folder / "jobs.csv").write_text("work_hours,cpus,restart_seconds\n" + "".join(rows))
    found = planned(folder, capsys)
    assert not found["is_proven"]
    assert found["added_usd"] <= found["added_usd_one_by_one"]
    assert all(job["pool"] is not None for job in found["jobs"])


def test_gangs_take_as_many_slots(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "jobs.csv").write_text(
        "name,work_hours,nodes,restart_seconds\ngang,2,5,0\none,2,1,0\n"
    )
    found = planned(folder, capsys)
    assert [(one["slots"], one["pool"]) for one in found["jobs"]] == [
        (5, "contract"),
        (1, "always"),
    ]
    assert found["added_usd"] == pytest.approx(4.0)
    assert found["is_proven"]


def test_what_is_used_up_already_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{folder / 'ledger.db'}"
    ledger = Ledger.open(url)
    lease = ledger.grant(sample_request(pool="contract"), slots=9, now=NOW - timedelta(hours=6))
    ledger.record(lease.key, JobEvent.STARTED, now=NOW - timedelta(hours=6))
    ledger.close()
    # Six of the contract's ten hours are used up, and such days are expected to go on.
    assert planned(folder, capsys)["added_usd"] == pytest.approx(12.0)
    assert planned(folder, capsys, "--ledger", url)["added_usd"] > 20.0


def test_a_job_without_a_pool_is_named_with_every_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "jobs.csv").write_text("name,work_hours,cpus\nsmall,1,1\nlarge,1,64\n")
    assert plan(folder) == 1
    said = capsys.readouterr().out
    assert "Together 1 jobs add" in said
    assert "large has no pool beside the others:" in said
    assert "  always has 4 CPUs of 64 needed" in said
    assert "  contract has 4 CPUs of 64 needed" in said


def test_a_pool_that_would_be_late_is_left_where_another_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pools.yaml").write_text(
        POOLS.replace("usd_per_hour: 2.0", "usd_per_hour: 0.1, preemptions_per_hour: 0.2")
    )
    (folder / "jobs.csv").write_text("work_hours,deadline_hours\n" + "4,5\n" * 3)
    found = planned(folder, capsys)
    assert [one["pool"] for one in found["jobs"]] == ["contract"] * 3
    assert found["jobs"][0]["refusals"] == {"always": "is expected to take 6.1 h and to be late"}


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ("name,work_hours\n", "jobs.csv: has no rows"),
        ("name\nfirst\n", "jobs.csv:2: has no work_hours"),
        ("work_hours,nodes\n1,0\n", "jobs.csv:2: nodes:"),
        ("work_hours,slots\n1,1\n", "slots: there is no such column"),
    ],
)
def test_a_mistake_in_the_jobs_is_named_with_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str], jobs: str, said: str
) -> None:
    (folder / "jobs.csv").write_text(jobs)
    assert plan(folder) == 1
    assert said in capsys.readouterr().err


def test_a_ledger_that_is_not_there_is_not_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(folder, "--ledger", f"sqlite:///{folder / 'none.db'}") == 1
    assert "there is no ledger at" in capsys.readouterr().err
    assert not (folder / "none.db").exists()


def test_a_time_that_is_none_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(folder, "--at", "tonight") == 1
    assert "--at tonight: is not a time in UTC; write it like" in capsys.readouterr().err


def test_simulating_needs_arrivals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--pools", str(folder / "pools.yaml"), "--jobs", str(folder / "jobs.csv")]
    assert main(["simulate", *files]) == 1
    assert "has no arrives_at" in capsys.readouterr().err
