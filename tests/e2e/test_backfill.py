"""`airflow backfill create` over three days: three runs, disjoint outputs, and a second call changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from e2e.books import check_books
from spillway.model import Market

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

DAYS = ("2026-03-03", "2026-03-04", "2026-03-05")


def create_backfill(deployment: Deployment) -> None:
    deployment.stack.run(
        "backfill", "create", "--dag-id", "nightly",
        "--from-date", "2026-03-03T00:00:00+00:00", "--to-date", "2026-03-05T12:00:00+00:00",
        "--dag-run-conf", json.dumps({"size": "tiny"}), "--max-active-runs", "3",
    )  # fmt: skip


def files_below(folder: Path) -> dict[str, int]:
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()
    }


def test_a_backfill_of_three_days_makes_three_disjoint_datasets_once(
    deployment: Deployment,
) -> None:
    stack = deployment.stack
    stack.wait_until(lambda: stack.has_dag("nightly"), "nightly to be parsed", 120)
    stack.request("PATCH", "dags/nightly", {"is_paused": False})
    create_backfill(deployment)

    def runs() -> list[dict[str, str]]:
        found = stack.request("GET", "dags/nightly/dagRuns?limit=50")["dag_runs"]
        return [run for run in found if run["run_type"] == "backfill"]

    def are_over() -> bool:
        return [run["state"] in {"success", "failed"} for run in runs()] == [True] * 3

    stack.wait_until(are_over, "three runs to end", 600, every_seconds=2)
    assert {run["state"] for run in runs()} == {"success"}

    data = stack.home / "spillway" / "data" / "nightly"
    assert sorted(folder.name[:10] for folder in data.iterdir()) == list(DAYS)
    for run in runs():
        leases = deployment.leases("nightly", run["dag_run_id"])
        markets = {deployment.dispatcher.pools[lease.pool].market for lease in leases}
        assert Market.ON_DEMAND not in markets
    check_books(stack.home / "spillway" / "ledger.db", "nightly")

    def is_complete() -> bool:
        """Airflow takes a second backfill of a DAG only when the first is complete, moments after its last run."""
        backfills = stack.request("GET", "backfills?dag_id=nightly")["backfills"]
        return all(backfill["completed_at"] for backfill in backfills)

    def leases() -> list[str]:
        found = [deployment.leases("nightly", run["dag_run_id"]) for run in runs()]
        return sorted(lease.key for of_run in found for lease in of_run)

    stack.wait_until(is_complete, "the backfill to be complete", 120)
    files_before, leases_before = files_below(data), leases()
    create_backfill(deployment)
    stack.wait_until(is_complete, "the second backfill to be complete", 120)
    assert len(runs()) == 3
    assert files_below(data) == files_before
    assert leases() == leases_before
