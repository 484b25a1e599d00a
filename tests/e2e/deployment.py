"""A running Airflow seen from outside: its runs, its leases and its jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.backends.protocol import SupportsListing
from spillway.dispatch import Dispatcher
from spillway.testing.airflow_stack import AirflowStack

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from spillway.model import Lease

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A running Airflow with the dispatcher of its deployment."""

    stack: AirflowStack
    dispatcher: Dispatcher

    def leases(self, dag_id: str, run_id: str) -> list[Lease]:
        """Return the leases of a run, oldest first."""
        reports = self.dispatcher.ledger.runs(
            dag_id=dag_id, run_id=run_id, now=datetime.now(UTC), limit=1000
        )
        return [report.lease for report in reversed(reports)]

    def jobs(self, dag_id: str, run_id: str) -> list[str]:
        """Return the keys of the run's jobs that some pool runs now."""
        keys = []
        for name in self.dispatcher.pools:
            backend = self.dispatcher.backend(name)
            assert isinstance(backend, SupportsListing)
            keys += [job.key for job in backend.list_jobs()]
        return [key for key in keys if key.startswith(f"{dag_id}/{run_id}/")]

    def keep_picture(self, page: Page, name: str) -> None:
        """Write what the browser shows to `build/pictures/`, for people to look at."""
        folder = PROJECT / "build" / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png")

    def wait_for_progress(self, dag_id: str, run_id: str, step: int = 1) -> Lease:
        """Wait until the run's newest job has counted to `step`; return its lease."""

        def has_counted() -> bool:
            leases = self.leases(dag_id, run_id)
            beat = self.dispatcher.heartbeat(leases[-1]) if leases else None
            return beat is not None and (beat.step or 0) >= step

        self.stack.wait_until(has_counted, f"{dag_id} to count to {step}", 180)
        return self.leases(dag_id, run_id)[-1]

    def log_of(self, dag_id: str, run_id: str, task_id: str = "count") -> str:
        """Return the log of the task's first try, as the UI shows it."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/1?full_content=true"
        return json.dumps(self.stack.request("GET", path))

    def wait_for_task_state(
        self, dag_id: str, run_id: str, state: str, seconds: float = 120
    ) -> None:
        """Wait until the run's only task has `state`."""
        self.stack.wait_until(
            lambda: self.stack.task_instances(dag_id, run_id)[0]["state"] == state,
            f"{dag_id} to be {state}",
            seconds,
        )

    def wait_for_end(self, dag_id: str, run_id: str, seconds: float = 240) -> str:
        """Wait until the run is over; return its state."""
        state = ""

        def is_over() -> bool:
            nonlocal state
            state = self.stack.run_state(dag_id, run_id)
            return state in {"success", "failed"}

        self.stack.wait_until(is_over, f"{dag_id} to end", seconds, every_seconds=2)
        return state
