"""The page in the Airflow UI: what ran where, why, and what it cost."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep  # noqa: TC002 # FastAPI reads the annotation
from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from spillway.airflow.hook import SpillwayHook

if TYPE_CHECKING:
    from spillway.ledger import LeaseReport
    from spillway.model import Placement

PAGE_ROWS = 200

_templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)


def make_app() -> FastAPI:
    """Return the application that the API server mounts; each route checks who asks."""
    app = FastAPI(title="Spillway")
    app.add_api_route("/page", page, response_class=HTMLResponse)
    return app


def page(
    user: GetUserDep,
    dag_id: Annotated[str | None, Query()] = None,
    run_id: Annotated[str | None, Query()] = None,
    task_id: Annotated[str | None, Query()] = None,
    map_index: Annotated[int | None, Query()] = None,
) -> str:
    """Show the leases of a run, a task or everything, newest first, as far as `user` may read their DAGs."""
    readable = get_auth_manager().get_authorized_dag_ids(user=user)
    ledger = SpillwayHook().dispatcher().ledger
    now = datetime.now(UTC)
    reports = [
        report
        for report in ledger.runs(dag_id=dag_id, run_id=run_id, now=now, limit=PAGE_ROWS)
        if report.lease.task.dag_id in readable
        and task_id in (None, report.lease.task.task_id)
        and map_index in (None, report.lease.task.map_index)
    ]
    rows = [_row(report, ledger.placement(report.lease.key), now) for report in reports]
    return _templates.get_template("page.html").render(
        rows=rows,
        title=" / ".join(part for part in (dag_id, run_id, task_id) if part) or "All runs",
        marginal=sum(report.marginal_cost for report in reports),
        effective=sum(report.effective_cost for report in reports),
        listed=sum(report.list_cost for report in reports),
        is_cut=len(reports) == PAGE_ROWS,
    )


def _row(report: LeaseReport, placement: Placement, now: datetime) -> dict[str, Any]:
    lease = report.lease
    return {
        "report": report,
        "lease": lease,
        "seconds": ((lease.ended_at or now) - lease.granted_at).total_seconds(),
        "passed_over": placement.passed_over,
    }
