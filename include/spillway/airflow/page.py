"""The page in the Airflow UI: what ran where, why, and what it cost."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import (
    GetUserDep,  # noqa: TC002 # FastAPI reads the annotation
)
from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from spillway.airflow.heartbeats import Heartbeats
from spillway.airflow.hook import SpillwayHook
from spillway.airflow.sweep_page import add_routes
from spillway.placement.explain import span

if TYPE_CHECKING:
    from spillway.ledger import LeaseReport, WaitingTask
    from spillway.model import Heartbeat, Placement

PAGE_ROWS: Final = 100
_READ_ROWS: Final = 20 * PAGE_ROWS  # of which some may be of DAGs that the user may not read

_templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)


def make_app() -> FastAPI:
    """Return the application that the API server mounts; each route checks who asks."""
    app = FastAPI(title="Spillway")
    app.add_api_route("/page", page, response_class=HTMLResponse)
    add_routes(app)
    return app


def page(
    user: GetUserDep,
    dag_id: Annotated[str | None, Query()] = None,
    run_id: Annotated[str | None, Query()] = None,
    task_id: Annotated[str | None, Query()] = None,
    map_index: Annotated[int | None, Query()] = None,
) -> str:
    """Show the leases of a run, a task or everything, newest first, and before them what waits, as far as `user` may read their DAGs."""
    readable = get_auth_manager().get_authorized_dag_ids(user=user)
    now = datetime.now(UTC)
    with closing(SpillwayHook().dispatcher().ledger) as ledger:
        found = [
            report
            for report in ledger.runs(dag_id=dag_id, run_id=run_id, now=now, limit=_READ_ROWS)
            if report.lease.task.dag_id in readable
            and task_id in (None, report.lease.task.task_id)
            and map_index in (None, report.lease.task.map_index)
        ]
        shown = found[:PAGE_ROWS]
        # What a lease said last is an object of its own, so that of a lease that is over is read for one run only.
        said = Heartbeats().read(r.lease for r in shown if run_id or r.lease.ended_at is None)
        rows = [
            _row(report, ledger.placement(report.lease.key), said.get(report.lease.key), now)
            for report in shown
        ]
        waiting = [
            one
            for one in ledger.waiting(now=now, dag_id=dag_id, run_id=run_id)
            if one.task.dag_id in readable
            and task_id in (None, one.task.task_id)
            and map_index in (None, one.task.map_index)
        ]
        tasks = {report.lease.task for report in shown}
        stored = [
            charge
            for charge in ledger.storage_charges(now=now, dag_id=dag_id, run_id=run_id)
            if charge.task in tasks
        ]
    return _templates.get_template("page.html").render(
        rows=rows,
        waiting=[_waiting_row(one, now) for one in waiting[:PAGE_ROWS]],
        waiting_in_all=len(waiting),
        title=" / ".join(part for part in (dag_id, run_id, task_id) if part) or "All runs",
        shows_runs=run_id is None,
        marginal=sum(report.marginal_cost for report in shown),
        effective=sum(report.effective_cost for report in shown),
        listed=sum(report.list_cost for report in shown),
        storage=sum(charge.cost for charge in stored),
        is_cut=len(found) > len(shown),
    )


def _row(
    report: LeaseReport, placement: Placement, said: Heartbeat | None, now: datetime
) -> dict[str, Any]:
    lease = report.lease
    return {
        "progress": _progress(said),
        "saving": _saving(said),
        "report": report,
        "lease": lease,
        "seconds": ((lease.ended_at or now) - lease.granted_at).total_seconds(),
        "passed_over": placement.passed_over,
        "residency": placement.residency,
    }


def _waiting_row(one: WaitingTask, now: datetime) -> dict[str, Any]:
    return {
        "task": one.task,
        "waited": span(now - one.since),
        "reason": one.unplaced.reason or "no pool that could take it has room now",
        "asks_again_at": f"{one.asks_again_at:%Y-%m-%d %H:%M:%S} UTC",
        "passed_over": one.unplaced.passed_over,
    }


def _progress(said: Heartbeat | None) -> str:
    if said is None or said.step is None:
        return ""
    rate = f", {said.steps_per_second:.3g} a second" if said.steps_per_second else ""
    return f"step {said.step} of {said.total_steps or '?'}{rate}"


def _saving(said: Heartbeat | None) -> str:
    """Return how often the job saves, why, and what a preemption is expected to cost it."""
    if said is None or said.checkpoint_interval is None:
        return ""
    loss = "" if said.expected_loss is None else f"; a preemption costs {span(said.expected_loss)}"
    return f"saves every {span(said.checkpoint_interval)}: {said.checkpoint_reason}{loss}"
