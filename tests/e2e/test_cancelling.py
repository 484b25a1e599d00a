"""Everything by which a person ends a deferred task stops its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.holding import GONE_WITHIN_SECONDS, assert_stopped, delete, start

if TYPE_CHECKING:
    from e2e.deployment import Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


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
