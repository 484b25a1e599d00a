"""Everything by which a person ends a deferred task stops its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.books import check_books
from spillway.model import LeaseState

if TYPE_CHECKING:
    from e2e.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

GONE_WITHIN_SECONDS = 60


def start(deployment: Deployment, dag_id: str = "hold") -> str:
    """Trigger a long count and wait until it is deferred and counting."""
    run_id = deployment.stack.trigger(dag_id, {"steps": 1000})
    deployment.wait_for_progress(dag_id, run_id)
    deployment.wait_for_task_state(dag_id, run_id, "deferred")
    assert len(deployment.jobs(dag_id, run_id)) == 1
    return run_id


def delete(deployment: Deployment, dag_id: str) -> None:
    """Delete the DAG; paused first, as the scheduler of Airflow 3.3.2 dies when it schedules a run that is being deleted."""
    deployment.stack.request("PATCH", f"dags/{dag_id}", {"is_paused": True})
    deployment.stack.request("DELETE", f"dags/{dag_id}")


def assert_stopped(deployment: Deployment, run_id: str, dag_id: str = "hold") -> None:
    deployment.stack.wait_until(
        lambda: deployment.jobs(dag_id, run_id) == [], "the job to be gone", GONE_WITHIN_SECONDS
    )
    deployment.stack.wait_until(
        lambda: deployment.leases(dag_id, run_id)[0].ended_at is not None, "the lease to end", 60
    )
    assert deployment.leases(dag_id, run_id)[0].state is LeaseState.CANCELLED
    check_books(deployment.stack.home / "spillway" / "ledger.db", dag_id)


@pytest.mark.parametrize("state", ["failed", "success"])
def test_marking_a_deferred_task_stops_its_job(deployment: Deployment, state: str) -> None:
    run_id = start(deployment)
    deployment.stack.request(
        "PATCH", f"dags/hold/dagRuns/{run_id}/taskInstances/count", {"new_state": state}
    )
    assert_stopped(deployment, run_id)


def test_deleting_what_it_belongs_to_stops_its_job(deployment: Deployment) -> None:
    """A running run cannot be deleted, but its DAG can, while its tasks are deferred."""
    run_id = start(deployment, "deleted")
    delete(deployment, "deleted")
    assert_stopped(deployment, run_id, "deleted")


def test_a_run_that_times_out_stops_its_job(deployment: Deployment) -> None:
    run_id = start(deployment, "hold_with_timeout")
    assert deployment.wait_for_end("hold_with_timeout", run_id, 60) == "failed"
    assert_stopped(deployment, run_id, "hold_with_timeout")


def test_clearing_a_deferred_task_stops_its_job_and_starts_another(deployment: Deployment) -> None:
    run_id = start(deployment)
    deployment.stack.request(
        "POST",
        "dags/hold/clearTaskInstances",
        {"dag_run_id": run_id, "dry_run": False, "only_failed": False, "task_ids": ["count"]},
    )
    first = deployment.leases("hold", run_id)[0]
    deployment.stack.wait_until(
        lambda: first.key not in deployment.jobs("hold", run_id),
        "the first job to be gone",
        GONE_WITHIN_SECONDS,
    )
    deployment.stack.wait_until(
        lambda: len(deployment.leases("hold", run_id)) == 2, "the second lease", 60
    )
    deployment.wait_for_progress("hold", run_id)
    assert len(deployment.jobs("hold", run_id)) == 1
    deployment.stack.request(
        "PATCH", f"dags/hold/dagRuns/{run_id}/taskInstances/count", {"new_state": "failed"}
    )
    deployment.stack.wait_until(
        lambda: deployment.jobs("hold", run_id) == [], "the second job to be gone", 30
    )


def test_reconciliation_finds_what_nobody_answers_for(deployment: Deployment) -> None:
    """With the triggerer dead and the DAG deleted nobody is told; the reconcile DAG finds the job."""
    run_id = start(deployment, "deleted_unseen")
    deployment.stack.kill_component("triggerer")
    delete(deployment, "deleted_unseen")
    reconcile = deployment.stack.trigger("reconcile")
    assert deployment.wait_for_end("reconcile", reconcile, 60) == "success"
    deployment.stack.start_component("triggerer")
    assert_stopped(deployment, run_id, "deleted_unseen")
