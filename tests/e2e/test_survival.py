"""Real Airflow, real jobs, and what dies in between: one job in all, and the books right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.books import check_books
from e2e.conftest import POOLS_FILE
from e2e.holding import assert_stopped, delete, start
from spillway.demo import __main__ as demo
from spillway.model import LeaseState

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_without_a_triggerer_jobs_go_on_and_reconciliation_stops_what_nobody_answers_for(
    deployment: Deployment,
) -> None:
    """Of a DAG that is deleted then, nobody is told; the reconcile DAG finds its job, and leaves the other alone."""
    run_id = start(deployment, "hold", steps=150)
    unseen = start(deployment, "deleted_unseen")
    deployment.stack.kill_component("triggerer")
    step = (deployment.dispatcher.heartbeat(deployment.leases("hold", run_id)[-1]).step or 0) + 10
    deployment.wait_for_progress("hold", run_id, step)
    delete(deployment, "deleted_unseen")
    reconcile = deployment.stack.trigger("reconcile")
    assert deployment.wait_for_end("reconcile", reconcile, 60) == "success"
    deployment.stack.start_component("triggerer")
    assert_stopped(deployment, unseen, "deleted_unseen")

    assert deployment.wait_for_end("hold", run_id, 180) == "success"
    (lease,) = deployment.leases("hold", run_id)
    assert lease.state is LeaseState.SUCCEEDED
    assert check_books(deployment.stack.home / "spillway" / "ledger.db", "hold")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_around_the_submission_starts_one_job(
    deployment: Deployment, moment: str
) -> None:
    dag_id = f"die_{moment}_submit"
    run_id = deployment.stack.trigger(dag_id, {"steps": 50})

    assert deployment.wait_for_end(dag_id, run_id, 180) == "success"
    (lease,) = deployment.leases(dag_id, run_id)
    assert lease.state is LeaseState.SUCCEEDED
    assert deployment.stack.task_instances(dag_id, run_id)[0]["try_number"] == 2
    assert check_books(deployment.stack.home / "spillway" / "ledger.db", dag_id) == 1


def test_no_feasible_pool_fails_the_task_at_once_with_the_reasons(deployment: Deployment) -> None:
    run_id = deployment.stack.trigger("hungry")

    assert deployment.wait_for_end("hungry", run_id, 60) == "failed"
    (instance,) = deployment.stack.task_instances("hungry", run_id)
    assert instance["try_number"] == 1
    assert deployment.leases("hungry", run_id) == []
    log = deployment.log_of("hungry", run_id)
    assert all(pool in log for pool in ("reserved", "partner", "on_demand"))
    assert "512" in log


def test_an_entry_point_that_does_not_import_names_itself(deployment: Deployment) -> None:
    run_id = deployment.stack.trigger("lost")

    assert deployment.wait_for_end("lost", run_id, 120) == "failed"
    assert "spillway.no_such_module" in deployment.log_of("lost", run_id)
    assert deployment.jobs("lost", run_id) == []


def test_a_demo_that_fails_is_not_called_a_success(
    deployment: Deployment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On an Airflow that is up already, with a DAG that no pool can take."""
    monkeypatch.setattr(demo, "AirflowStack", lambda **_: deployment.stack)
    monkeypatch.setattr(type(deployment.stack), "start", lambda *_, **__: None)
    monkeypatch.setattr(type(deployment.stack), "stop", lambda _: None)
    monkeypatch.setattr(demo, "DAG_ID", "hungry")
    monkeypatch.setattr(demo, "_INTERRUPTS", ())
    assert demo.main(["--home", str(tmp_path / "demo"), "--pools", str(POOLS_FILE)]) == 1
    assert "failed: count" in capsys.readouterr().out
