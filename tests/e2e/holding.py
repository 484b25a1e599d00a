"""Jobs that last, and how they end when somebody sees to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.books import check_books
from spillway.model import LeaseState

if TYPE_CHECKING:
    from e2e.deployment import Deployment

GONE_WITHIN_SECONDS = 60


def start(deployment: Deployment, dag_id: str = "hold", *, steps: int = 1000) -> str:
    """Trigger a long count and wait until it is deferred and counting."""
    run_id = deployment.stack.trigger(dag_id, {"steps": steps})
    deployment.wait_for_progress(dag_id, run_id)
    deployment.wait_for_task_state(dag_id, run_id, "deferred")
    assert len(deployment.jobs(dag_id, run_id)) == 1
    return run_id


def delete(deployment: Deployment, dag_id: str) -> None:
    """Delete the DAG; paused first, as the scheduler of Airflow 3.3.2 dies when it schedules a run that is being deleted."""
    deployment.stack.request("PATCH", f"dags/{dag_id}", {"is_paused": True})
    deployment.stack.request("DELETE", f"dags/{dag_id}")


def assert_stopped(deployment: Deployment, run_id: str, dag_id: str = "hold") -> None:
    """Wait until the run's job is gone, and check its lease and the books."""
    deployment.stack.wait_until(
        lambda: deployment.jobs(dag_id, run_id) == [], "the job to be gone", GONE_WITHIN_SECONDS
    )
    deployment.stack.wait_until(
        lambda: deployment.leases(dag_id, run_id)[0].ended_at is not None, "the lease to end", 60
    )
    assert deployment.leases(dag_id, run_id)[0].state is LeaseState.CANCELLED
    check_books(deployment.stack.home / "spillway" / "ledger.db", dag_id)
