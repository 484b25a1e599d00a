"""A real Airflow for the end-to-end tests, and the deployment's books beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from conftest import require
from e2e.deployment import PROJECT, Deployment
from spillway.backends import registry
from spillway.catalog.pools_file import load_pools
from spillway.dispatch import Dispatcher
from spillway.ledger import Ledger
from spillway.reconcile import reconcile
from spillway.testing.airflow_stack import AirflowStack
from spillway.testing.postgres import find_postgres, postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

POOLS_FILE = Path(__file__).parent / "pools.yaml"


def open_dispatcher(home: Path, pools_file: Path) -> Dispatcher:
    return Dispatcher(
        pools=load_pools(pools_file, backends=registry.names()),
        ledger=Ledger.open(f"sqlite:///{home / 'ledger.db'}"),
        store_url=(home / "checkpoints").as_uri(),
        backend_of=lambda pool: registry.load(pool, home=home),
    )


@pytest.fixture
def deployment(shared_deployment: Deployment) -> Deployment:
    # Airflow 3.3.2's scheduler dies when a DAG is deleted while it schedules a run of it.
    shared_deployment.stack.revive()
    return shared_deployment


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    require(chromium, "no Chromium is installed: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(deployment: Deployment, browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{deployment.stack.url}/auth/token/login")
    page.goto("about:blank")  # Airflow's own page would keep a core busy
    yield page
    page.close()


@pytest.fixture(scope="package")
def database() -> Iterator[dict[str, str]]:
    """Settings of Airflow's own database: PostgreSQL as in earnest, where it is there; the demo's tests are on SQLite."""
    binaries = find_postgres()
    if binaries is None:
        yield {}
        return
    with postgres_server(binaries) as url:
        yield {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url,
        }


@pytest.fixture(scope="package")  # not longer: an idle Airflow takes a tenth of a core
def shared_deployment(
    tmp_path_factory: pytest.TempPathFactory, database: dict[str, str]
) -> Iterator[Deployment]:
    home = tmp_path_factory.mktemp("airflow")
    bundles = [
        {
            "name": name,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(path)},
        }
        for name, path in (
            ("project", PROJECT / "dags"),
            ("tests", Path(__file__).parent / "dags"),
        )
    ]
    stack = AirflowStack(
        home=home,
        project=PROJECT,
        pools_file=POOLS_FILE,
        settings={
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
            **database,
        },
    )
    with stack:
        dispatcher = open_dispatcher(home / "spillway", POOLS_FILE)
        try:
            yield Deployment(stack=stack, dispatcher=dispatcher)
        finally:
            reconcile(dispatcher, lambda _: False)
