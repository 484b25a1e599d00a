"""The page of a sweep: it shows what the sweep wrote, to those who may read its DAG, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import create_autospec
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient

from spillway.airflow.hook import SpillwayHook
from spillway.airflow.links import SweepLink
from spillway.airflow.page import make_app
from spillway.airflow.trials import CollectTrialsOperator, SweepOperator
from spillway.workloads.sweeping.artefacts import write_artefacts
from spillway.workloads.sweeping.rows import Row

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.testing.fake_deployment import FakeDeployment

FOLDER = "sweep/manual__2026"
WHERE = {"dag_id": "nightly", "run_id": "manual__2026", "folder": FOLDER}


@pytest.fixture
def data(world: FakeDeployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The deployment's data, to which a task of DAG `nightly` writes a sweep."""
    data = tmp_path / "data"
    monkeypatch.setattr(SpillwayHook, "deployment", SimpleNamespace(data=str(data)))
    request = world.request()
    arguments = {"output": f"{data}/{FOLDER}"}
    world.dispatcher.begin(
        replace(
            request,
            task=replace(request.task, dag_id="nightly", run_id="manual__2026"),
            spec=replace(request.spec, arguments=arguments),
        )
    )
    return data


def client(monkeypatch: pytest.MonkeyPatch, *, readable: frozenset[str]) -> TestClient:
    manager = create_autospec(BaseAuthManager, instance=True)
    manager.get_authorized_dag_ids.return_value = readable
    monkeypatch.setattr("spillway.airflow.sweep_page.get_auth_manager", lambda: manager)
    app = make_app()
    app.dependency_overrides[get_user] = lambda: "vera"
    return TestClient(app)


def write_sweep(data: Path) -> None:
    rows = [
        Row(trial=0, params={"rate": "<script>"}, pools=("spot",))
        .reported(1, 0.5)
        .ended(max_steps=1, error=None, metric_name="loss")
    ]
    write_artefacts(
        str(data / FOLDER), rows, table=[{"trial": 0}], best=rows[0], metric="loss", mode="min"
    )


def test_the_page_shows_the_plots_and_the_table(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = client(monkeypatch, readable=frozenset({"nightly"}))
    assert "written when the sweep ends" in visitor.get("/sweep", params=WHERE).text
    assert visitor.get("/sweep/trials.csv", params=WHERE).status_code == 404
    write_sweep(data)
    page = visitor.get("/sweep", params=WHERE).text
    assert "<script>" not in page
    assert "<td>spot</td>" in page
    assert page.count("<img src=") == 2
    for name, kind in {
        "learning_curves.svg": "image/svg+xml",
        "parallel_coordinates.svg": "image/svg+xml",
        "trials.csv": "text/csv; charset=utf-8",
        "trials.json": "application/json",
    }.items():
        assert f"/spillway/sweep/{name}?" in page
        file = visitor.get(f"/sweep/{name}", params=WHERE)
        assert (file.status_code, file.headers["Content-Type"]) == (200, kind)
        assert file.content == (data / FOLDER / name).read_bytes()
        assert "sandbox" in file.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("change", "readable"),
    [
        ({}, frozenset[str]()),
        ({"folder": "sweep"}, frozenset({"nightly"})),
        ({"folder": f"../data/{FOLDER}"}, frozenset({"nightly"})),
        ({"run_id": "manual__2027"}, frozenset({"nightly"})),
        ({"dag_id": "other"}, frozenset({"nightly", "other"})),
    ],
)
def test_only_what_a_task_of_a_readable_dag_wrote_is_shown(
    data: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], readable: frozenset[str]
) -> None:
    write_sweep(data)
    visitor = client(monkeypatch, readable=readable)
    for path in ("/sweep", "/sweep/trials.csv"):
        assert visitor.get(path, params={**WHERE, **change}).status_code == 404


def test_other_files_of_the_folder_are_not_served(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(data)
    (data / FOLDER / "sweep.json").write_text("{}")
    visitor = client(monkeypatch, readable=frozenset({"nightly"}))
    assert visitor.get("/sweep/sweep.json", params=WHERE).status_code == 404


def test_nobody_in_particular_sees_no_sweep(data: Path) -> None:
    assert TestClient(make_app()).get("/sweep", params=WHERE).status_code == 401


def test_the_tasks_of_both_modes_have_the_link() -> None:
    for operator in (
        SweepOperator(task_id="sweep", entry_point="a.b:c", output_folder=FOLDER),
        CollectTrialsOperator(task_id="table", output_folder=FOLDER, trials="spread.trial"),
    ):
        (link,) = (each for each in operator.operator_extra_links if isinstance(each, SweepLink))
        key: Any = SimpleNamespace(dag_id="nightly", run_id="manual__2026")
        address = urlsplit(link.get_link(operator, ti_key=key))
        assert address.path == "/spillway/sweep"
        assert {name: value for name, (value,) in parse_qs(address.query).items()} == WHERE
