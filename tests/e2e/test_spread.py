"""A sweep on real Airflow, once in one lease and once spread over the pools: the same trials, and the same best."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from e2e.books import check_books
from spillway.checkpoints import open_store
from spillway.model import LeaseState
from spillway.runtime.exchange import read_result
from spillway.workloads.sizes import SIZES

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from e2e.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(1200)]


def result_of(deployment: Deployment, dag_id: str, run_id: str, task_id: str) -> Any:
    (lease,) = (
        lease for lease in deployment.leases(dag_id, run_id) if lease.task.task_id == task_id
    )
    result = read_result(open_store(lease.submission.store), lease.submission.prefix, lease.token)
    assert result is not None
    return result.value


def look_at_sweep(deployment: Deployment, page: Page, run_id: str, task_id: str) -> str:
    """Follow the button on the task; return the text of what it opens, once its plots are shown."""
    path = f"dags/sweep/dagRuns/{run_id}/taskInstances/{task_id}/links"
    link = deployment.stack.request("GET", path)["extra_links"]["Sweep"]
    page.goto(f"{deployment.stack.url}{link}")
    page.wait_for_load_state("networkidle")
    widths = page.locator("img").evaluate_all("plots => plots.map(plot => plot.naturalWidth)")
    assert len(widths) == 2
    assert min(widths) > 0
    deployment.keep_picture(page, f"sweep-{task_id}")
    return page.locator("body").inner_text()


def test_a_spread_sweep_finds_what_a_sweep_in_one_lease_finds(
    deployment: Deployment, page: Page
) -> None:
    run_id = deployment.stack.trigger("preprocess", {"size": "tiny"})
    assert deployment.wait_for_end("preprocess", run_id, 240) == "success"
    dataset = result_of(deployment, "preprocess", run_id, "preprocess.merge")["dataset"]

    # Whom a scheduler stops depends on who was quicker; without one both have to find the same.
    conf = {"dataset": dataset, "size": "tiny", "seed": 4, "scheduler": "none"}
    spread = deployment.stack.trigger("sweep", {**conf, "mode": "spread"})
    assert deployment.wait_for_end("sweep", spread, 240) == "success"
    alone = deployment.stack.trigger("sweep", conf)
    assert deployment.wait_for_end("sweep", alone, 480) == "success"

    folder = deployment.stack.home / "spillway" / "data" / "sweep" / spread
    rows = json.loads((folder / "trials.json").read_text())
    leases = deployment.leases("sweep", spread)
    trials = SIZES["tiny"].trials
    assert [lease.task.task_id for lease in leases] == ["spread.trial"] * trials
    assert {lease.state for lease in leases} == {LeaseState.SUCCEEDED}
    assert [row["pools"] for row in rows] == [
        [lease.pool] for lease in sorted(leases, key=lambda lease: lease.task.map_index)
    ]
    assert check_books(deployment.stack.home / "spillway" / "ledger.db", "sweep") == trials + 1

    expected = result_of(deployment, "sweep", alone, "sweep")
    assert [row["params"] for row in rows] == [row["params"] for row in expected["trials"]]
    assert {row["status"] for row in rows} == {"finished"}
    best = min(rows, key=lambda row: row["metric"])
    assert best["params"] == expected["best"]["params"]
    assert best["metric"] == expected["best"]["metric"]
    states = {
        each["task_id"]: each["state"] for each in deployment.stack.task_instances("sweep", alone)
    }
    assert states["spread.table"] == states["spread.plan"] == "skipped"
    for run_id, task_id in ((alone, "sweep"), (spread, "spread.table")):
        text = look_at_sweep(deployment, page, run_id, task_id)
        assert f"{trials} trials" in text
        assert all(pool in text for row in rows for pool in row["pools"]) or run_id == alone
