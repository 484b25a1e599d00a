"""What the API server does of ours: it stops the jobs of tasks that a person ended, and shows the page."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from unittest.mock import create_autospec

import pytest
from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
from airflow.api_fastapi.core_api.security import get_user
from airflow.jobs.job import Job
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance, TaskRunnerMarker
from fastapi.testclient import TestClient
from sqlalchemy.orm import configure_mappers
from sqlalchemy.orm.attributes import manager_of_class

from spillway.airflow import listener
from spillway.airflow.page import make_app
from spillway.catalog.store_place import StorePlace
from spillway.checkpoints import open_store
from spillway.dispatch import Dispatcher, Running, Waiting
from spillway.model import Heartbeat
from spillway.placement.explain import span
from spillway.reconcile import reconcile
from spillway.runtime import Session
from spillway.testing.fake_backend import FakeBackend
from spillway.testing.fake_deployment import ON_DEMAND, RESERVED, SPEC

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.testing.fake_deployment import FakeDeployment

FACTS = {"dag_id": "nightly", "run_id": "manual__2026", "task_id": "train", "map_index": -1}


def row(state: str) -> TaskInstance:
    """Return a task instance as the API server has it: a row of the database."""
    configure_mappers()
    instance = manager_of_class(TaskInstance).new_instance()
    for name, value in {**FACTS, "state": state}.items():
        setattr(instance, name, value)
    return instance


def test_what_dag_files_import_is_loaded_where_tasks_are_forked_and_not_by_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "spillway.airflow.pipeline"
    monkeypatch.delitem(sys.modules, name, raising=False)
    listener.on_starting(TaskRunnerMarker())
    assert name not in sys.modules
    listener.on_starting(Job())
    assert name in sys.modules


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_a_task_marked_by_a_person_loses_its_job(world: FakeDeployment, state: str) -> None:
    world.dispatcher.begin(world.request())
    match state:
        case "failed":
            listener.on_task_instance_failed(None, row(state), "marked")
        case "success":
            listener.on_task_instance_success(None, row(state))
        case _:
            listener.on_task_instance_skipped(None, row(state))
    assert world.live == []
    assert world.ledger.open_leases() == []


def test_a_task_that_will_be_retried_keeps_its_job(world: FakeDeployment) -> None:
    world.dispatcher.begin(world.request())
    listener.on_task_instance_failed(None, row("up_for_retry"), "marked")
    assert len(world.live) == 1


def test_what_a_worker_reports_of_itself_stops_nothing(world: FakeDeployment) -> None:
    world.dispatcher.begin(world.request())
    instance = RuntimeTaskInstance.model_construct(**FACTS, state="failed")
    listener.on_task_instance_failed(None, instance, "its own")
    assert len(world.live) == 1


def test_a_provider_that_does_not_answer_does_not_fail_the_mark(world: FakeDeployment) -> None:
    world.dispatcher.begin(world.request())
    world.providers["reserved"].is_reachable = False
    listener.on_task_instance_failed(None, row("failed"), "marked")
    world.providers["reserved"].is_reachable = True
    reconcile(world.dispatcher, lambda _: True)
    assert world.live == []


# ---- the page -------------------------------------------------------------------------------------------------


def test_nobody_in_particular_sees_nothing(world: FakeDeployment) -> None:
    app = make_app()
    client = TestClient(app)
    for path in ("/page", "/page?dag_id=nightly"):
        assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    ("readable", "sees"), [({"nightly"}, True), ({"other"}, False), (set(), False)]
)
def test_a_person_sees_only_dags_that_they_may_read(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch, readable: set[str], sees: bool
) -> None:
    world.dispatcher.begin(world.request())
    manager = create_autospec(BaseAuthManager, instance=True)
    manager.get_authorized_dag_ids.return_value = readable
    monkeypatch.setattr("spillway.airflow.page.get_auth_manager", lambda: manager)
    app = make_app()
    app.dependency_overrides[get_user] = lambda: "vera"
    page = TestClient(app).get("/page")
    assert page.status_code == 200
    assert ("reserved" in page.text) is sees
    assert ("No lease yet" in page.text) is not sees


def seen_by(readable: set[str], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Return the page as somebody sees it who may read some DAGs."""
    manager = create_autospec(BaseAuthManager, instance=True)
    manager.get_authorized_dag_ids.return_value = readable
    monkeypatch.setattr("spillway.airflow.page.get_auth_manager", lambda: manager)
    app = make_app()
    app.dependency_overrides[get_user] = lambda: "vera"
    return TestClient(app)


def test_the_page_says_what_waits_until_when_and_what_that_saves(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved = replace(RESERVED, list_usd_per_hour=Decimal(30))
    dear = replace(ON_DEMAND, list_usd_per_hour=Decimal(31))
    dispatcher = Dispatcher(
        pools=(reserved, dear),
        ledger=world.ledger,
        store_url=world.store_url,
        backend_of=lambda pool: FakeBackend(world.providers[pool.name]),
    )
    hour = timedelta(hours=1)
    dispatcher.begin(world.request("first", spec=replace(SPEC, work=3 * hour, checkpoints=False)))
    now = datetime.now(UTC)
    patient = replace(SPEC, deadline=now + 12 * hour, checkpoints=False)
    step = dispatcher.begin(world.request("patient", spec=patient))
    assert isinstance(step, Waiting)
    text = seen_by({"nightly"}, monkeypatch).get("/page?dag_id=nightly").text
    assert "Waiting now" in text
    assert re.search(r"start \w{3} \d\d:00 UTC on reserved, saves \$31\.\d\d", text)
    assert "has no free slot" in text
    assert "Waiting now" not in seen_by({"other"}, monkeypatch).get("/page").text


def test_the_page_shows_the_evidence_of_residency(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher = Dispatcher(
        pools=(replace(RESERVED, jurisdiction="EU", region="eu-north-1"),),
        ledger=world.ledger,
        store_url=world.store_url,
        store_place=StorePlace(jurisdiction="EU"),
        backend_of=lambda pool: FakeBackend(world.providers[pool.name]),
    )
    stays = replace(SPEC, residency=frozenset({"EU", "CH"}))
    assert isinstance(dispatcher.begin(world.request(spec=stays)), Running)
    text = seen_by({"nightly"}, monkeypatch).get("/page").text
    assert "data stays in CH, EU: runs in EU (eu-north-1), stores in EU" in text


def test_the_page_says_what_keeping_checkpoints_costs(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = world.dispatcher.begin(world.request())
    assert isinstance(step, Running)
    said = Heartbeat(
        token=step.lease.token,
        written_at=world.clock(),
        stored_gib=73.0,
        stored_since=world.clock(),
        stored_from=world.clock(),
    )
    world.ledger.note_stored(step.lease.key, said, usd_per_gib_month=Decimal(1))
    manager = create_autospec(BaseAuthManager, instance=True)
    manager.get_authorized_dag_ids.return_value = {"nightly"}
    monkeypatch.setattr("spillway.airflow.page.get_auth_manager", lambda: manager)
    app = make_app()
    app.dependency_overrides[get_user] = lambda: "vera"
    page = TestClient(app).get("/page?dag_id=nightly")
    assert "Keeping the checkpoints of these tasks has cost" in page.text


def test_the_page_says_how_far_a_job_is_and_how_often_it_saves(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = world.dispatcher.begin(world.request())
    assert isinstance(step, Running)
    world.say(
        step.lease,
        step=40,
        total_steps=100,
        steps_per_second=2.5,
        checkpoint_interval=timedelta(minutes=12),
        checkpoint_reason="a save takes 3 s",
        expected_loss=timedelta(minutes=6),
    )
    manager = create_autospec(BaseAuthManager, instance=True)
    manager.get_authorized_dag_ids.return_value = {"nightly"}
    monkeypatch.setattr("spillway.airflow.page.get_auth_manager", lambda: manager)
    app = make_app()
    app.dependency_overrides[get_user] = lambda: "vera"
    page = TestClient(app).get("/page")
    assert "step 40 of 100, 2.5 a second" in page.text
    saves = "saves every 12 min: a save takes 3 s; a preemption costs 6 min"
    assert saves in page.text
    world.dispatcher.cancel(step.lease.key, detail="enough")
    assert saves not in TestClient(app).get("/page").text
    assert saves in TestClient(app).get(f"/page?run_id={step.lease.task.run_id}").text


@pytest.mark.parametrize("end", ["well", "killed"])
def test_the_page_of_a_run_says_how_often_a_job_saved_also_when_its_lease_is_over(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: str
) -> None:
    step = world.dispatcher.begin(world.request())
    assert isinstance(step, Running)
    submission = step.lease.submission
    session = Session(
        replace(submission, checkpoint_interval=timedelta(minutes=12)),
        open_store(submission.store),
        scratch=tmp_path,
    )
    session.progress(1, 10)
    session.checkpoint(1, {"at": 1})
    said = session.heartbeat
    assert said.checkpoint_interval is not None
    assert said.expected_loss is not None
    saves = (
        f"saves every {span(said.checkpoint_interval)}: {said.checkpoint_reason}; "
        f"a preemption costs {span(said.expected_loss)}"
    )
    client, run = seen_by({"nightly"}, monkeypatch), f"/page?run_id={step.lease.task.run_id}"
    assert saves in client.get("/page").text
    if end == "well":
        session.end(succeeded=True)
        world.succeed(step.lease)
        world.dispatcher.advance(world.request(), step.lease.key)
    else:
        world.dispatcher.cancel(step.lease.key, detail="enough")
    assert world.ledger.lease(step.lease.key).ended_at is not None
    assert saves in client.get(run).text
