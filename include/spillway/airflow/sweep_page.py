"""The page of one sweep in the Airflow UI: its plots and its table of trials, as the sweep wrote them into its output folder."""

from __future__ import annotations

import csv
import io
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlencode

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import (
    GetUserDep,  # noqa: TC002 # FastAPI reads the annotation
)
from fastapi import HTTPException, Query, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from spillway.airflow.hook import SpillwayHook
from spillway.airflow.links import PAGE_PREFIX
from spillway.workloads import dataset

if TYPE_CHECKING:
    from fastapi import FastAPI

    from spillway.checkpoints import ObjectStore

PLOTS: Final = ("learning_curves.svg", "parallel_coordinates.svg")
FILES: Final = {
    **dict.fromkeys(PLOTS, "image/svg+xml"),
    "trials.csv": "text/csv; charset=utf-8",
    "trials.json": "application/json",
}
"""What may be asked for, and of which type each is."""

_MOST_ROWS: Final = 500
_MOST_LEASES: Final = 10_000
_SAFE: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
}

_templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)


def add_routes(app: FastAPI) -> None:
    """Add the page and the files that it shows."""
    app.add_api_route("/sweep", sweep, response_class=HTMLResponse)
    app.add_api_route("/sweep/{name}", file, response_class=Response)


def sweep(
    user: GetUserDep,
    dag_id: Annotated[str, Query()],
    run_id: Annotated[str, Query()],
    folder: Annotated[str, Query()],
) -> str:
    """Show the sweep whose outputs are in `folder`, relative to the deployment's data, if `user` may read its DAG."""
    store = _folder_of(user, dag_id=dag_id, run_id=run_id, folder=folder)
    there = store.get("trials.csv")
    lines = list(csv.reader(io.StringIO(there.decode()))) if there else []
    query = urlencode({"dag_id": dag_id, "run_id": run_id, "folder": folder})
    return _templates.get_template("sweep_page.html").render(
        title=f"{dag_id} / {run_id}",
        folder=folder,
        names=lines[0] if lines else [],
        rows=lines[1 : _MOST_ROWS + 1],
        trials=max(len(lines) - 1, 0),
        plots=[f"{PAGE_PREFIX}/sweep/{name}?{query}" for name in PLOTS],
        files={name: f"{PAGE_PREFIX}/sweep/{name}?{query}" for name in FILES},
    )


def file(
    user: GetUserDep,
    name: str,
    dag_id: Annotated[str, Query()],
    run_id: Annotated[str, Query()],
    folder: Annotated[str, Query()],
) -> Response:
    """Return one of the sweep's files as it was written."""
    if name not in FILES:
        raise HTTPException(404, f"a sweep has no {name}: ask for one of {', '.join(FILES)}")
    content = _folder_of(user, dag_id=dag_id, run_id=run_id, folder=folder).get(name)
    if content is None:
        raise HTTPException(404, f"{folder} has no {name} yet: it is written when the sweep ends")
    return Response(content, media_type=FILES[name], headers=_SAFE)


def _folder_of(user: Any, *, dag_id: str, run_id: str, folder: str) -> ObjectStore:
    """Return the folder if it is one that a task of this run writes to, and the run's DAG is one the user may read.

    Raises:
        HTTPException: It is not. The answer does not tell which of the two.
    """
    if dag_id in get_auth_manager().get_authorized_dag_ids(user=user):
        hook = SpillwayHook()
        output = f"{hook.deployment.data.rstrip('/')}/{folder}"
        with closing(hook.dispatcher().ledger) as ledger:
            reports = ledger.runs(
                dag_id=dag_id, run_id=run_id, now=datetime.now(UTC), limit=_MOST_LEASES
            )
            if any(each.lease.submission.arguments.get("output") == output for each in reports):
                return dataset.open_folder(output)
    raise HTTPException(
        404, f"no task of run {run_id} writes to {folder}, or you may not read {dag_id}"
    )
