"""An Airflow of the tests' own; its settings have to stand before Airflow is imported."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from spillway.testing.fake_deployment import FakeDeployment

PROJECT = Path(__file__).parents[2]

assert "airflow" not in sys.modules, "Airflow was imported before its settings were made"
for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
_home = tempfile.mkdtemp(prefix="spillway-airflow-")
os.environ.update(
    {
        "AIRFLOW_HOME": _home,
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_home}/airflow.db?timeout=60",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    }
)


@pytest.fixture(scope="session")
def project() -> Path:
    return PROJECT


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDeployment:
    """A deployment on fake pools, which every operator, trigger, mark and page of the test finds."""
    from spillway.airflow import observer
    from spillway.airflow.hook import SpillwayHook

    world = FakeDeployment(tmp_path)
    monkeypatch.setattr(SpillwayHook, "dispatcher", lambda _: world.new_process())
    monkeypatch.setattr(observer, "_observers", {})
    return world
