"""What happens to jobs at Google Cloud Batch: preempted, lost, refused, over quota, forgotten, half started."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.oauth2 import service_account

from contract.beside import BesideCloud, places_after_a_stockout
from contract.google_world import GoogleWorld, TpuWorld, VertexWorld, live_and_die
from spillway.backends.google.batch import backend as batch_backend
from spillway.backends.protocol import Connection, Job, SupportsLogs
from spillway.errors import AccessError, BackendError, CapacityError, RejectedError, TransientError
from spillway.model import JobEvent, Market
from spillway.testing.backend_suite import ENDS, Behaviour
from spillway.testing.google_machines import Refusal, permission_denied
from spillway.testing.google_server import GoogleServer, google_server

if TYPE_CHECKING:
    from collections.abc import Iterator

STARTED = frozenset({JobEvent.STARTED})
LACKS = {
    "quota": "Batch Error: code - CODE_GCE_QUOTA_EXCEEDED, description - error count is 1, latest message example: Instance"
    " creation failed: Quota 'GPUS_ALL_REGIONS' exceeded. Limit: 8.0 globally.",
    "stockout": "Batch Error: code - CODE_GCE_ZONE_RESOURCE_POOL_EXHAUSTED, description - the zone does not have enough"
    " resources available to fulfill the request.",
}


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleServer]:
    with google_server(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture(params=["grpc", "rest"])
def world(request: pytest.FixtureRequest, server: GoogleServer, tmp_path: Path) -> GoogleWorld:
    url = server.grpc_url if request.param == "grpc" else server.rest_url
    return GoogleWorld(server, tmp_path, endpoint=url, transport=request.param)


def test_a_job_runs_fails_and_is_released(world: GoogleWorld) -> None:
    live_and_die(world, world.connect())


@pytest.mark.parametrize(
    ("code", "event"),
    [
        (50001, JobEvent.PREEMPTED),
        (50002, JobEvent.VANISHED),
        (50003, JobEvent.VANISHED),
        (50004, JobEvent.VANISHED),
        (50005, JobEvent.PREEMPTED),
        (50006, JobEvent.VANISHED),
        (137, JobEvent.FAILED),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_how_machines_end_is_told_apart(
    server: GoogleServer, tmp_path: Path, code: int, event: JobEvent, hidden: bool
) -> None:
    server.batch.hides_exit_codes = hidden
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeper.chmod(0o755)
    world = GoogleWorld(server, tmp_path, python=str(sleeper))
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    backend.observe([job])
    server.batch.end_machines(code)
    seen = world.wait(backend, job)
    assert seen.event is event
    assert str(code) in seen.detail
    assert ("memory_gib" in seen.detail) == (code == 137)


@pytest.mark.parametrize("lack", sorted(LACKS))
def test_a_lack_of_machines_sends_the_task_elsewhere(
    server: GoogleServer, world: GoogleWorld, lack: str
) -> None:
    server.batch.lack = LACKS[lack]
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    backend.observe([job])
    seen = backend.observe([job])[job.key]
    assert seen.event is JobEvent.PREEMPTED
    assert "CODE_GCE" in seen.detail
    backend.release(job)
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED


def test_a_stockout_keeps_tasks_off_the_pool(server: GoogleServer, tmp_path: Path) -> None:
    server.batch.lack = LACKS["stockout"]
    server.compute.quotas = {"us-central1": {"CPUS": (100, 0)}}
    world = GoogleWorld(server, tmp_path, quotas={"CPUS": 1})
    deployment = BesideCloud(tmp_path, world)
    assert places_after_a_stockout(deployment) == [world.name, "on_demand", "on_demand"]


def test_flex_start_waits_for_machines(server: GoogleServer, tmp_path: Path) -> None:
    world = GoogleWorld(server, tmp_path, provisioning="FLEX_START", max_run="P1D")
    world.pool = lambda pool=world.pool: replace(pool(), market=Market.ON_DEMAND)  # type: ignore[method-assign]
    server.batch.lack = LACKS["stockout"]
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    backend.observe([job])
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED


def test_a_job_that_waits_too_long_goes_elsewhere(server: GoogleServer, tmp_path: Path) -> None:
    server.batch.lack = "VM creation is slow"
    world = GoogleWorld(server, tmp_path, start_within="PT10M")
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    clock = backend._clock
    backend._clock = lambda: clock() + timedelta(minutes=11)
    assert backend.observe([job])[job.key].event is JobEvent.PREEMPTED


@pytest.mark.parametrize("kind", [GoogleWorld, VertexWorld])
@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong_ends_nothing_over_rest(
    server: GoogleServer, tmp_path: Path, kind: type[GoogleWorld], hours: int
) -> None:
    server.ahead = timedelta(hours=hours)
    server.batch.lack, server.vertex.queues = "VM creation is slow", True
    rest = {"endpoint": server.rest_url, "transport": "rest"}
    backend = (world := kind(server, tmp_path, start_within="PT10M", **rest)).connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    (known,) = server.batch.jobs() or server.vertex.jobs()
    known.create_time += server.ahead
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    known.create_time -= timedelta(minutes=11)
    seen = backend.observe([job])[job.key]
    assert seen.event is JobEvent.PREEMPTED
    assert abs(seen.seen_at - datetime.now(UTC)) < timedelta(minutes=1)  # by our own clock


# What Google answers, by which class it is to us, and what the message has to say.
REFUSALS: dict[str, tuple[Refusal, type[BackendError], str]] = {
    "permission": (permission_denied("batch.jobs.create"), AccessError, "batch.jobs.create"),
    "credentials": (
        Refusal("UNAUTHENTICATED", "Request had invalid authentication credentials."),
        AccessError,
        "renew the credentials",
    ),
    "service disabled": (
        Refusal(
            "PERMISSION_DENIED",
            "Batch API has not been used in project 1 before or it is disabled.",
            reason="SERVICE_DISABLED",
            metadata={"service": "batch.googleapis.com"},
        ),
        AccessError,
        "gcloud services enable batch.googleapis.com",
    ),
    "quota": (
        Refusal("RESOURCE_EXHAUSTED", "Quota exceeded: 500 active jobs"),
        CapacityError,
        "more quota",
    ),
    "throttled": (
        Refusal(
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for quota metric 'Create requests' per minute",
            reason="RATE_LIMIT_EXCEEDED",
            retry_seconds=40,
        ),
        TransientError,
        "slow down",
    ),
    "machine type": (
        Refusal("INVALID_ARGUMENT", "machine type a9-mega is not found in us-central1"),
        RejectedError,
        "a9-mega",
    ),
    "server": (Refusal("INTERNAL", "Internal error"), TransientError, "later"),
    "unavailable": (Refusal("UNAVAILABLE", "try again"), TransientError, "later"),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_a_refused_job_is_an_error_by_what_to_do(
    server: GoogleServer, world: GoogleWorld, case: str
) -> None:
    refusal, kind, words = REFUSALS[case]
    server.refusals["CreateJob"] = refusal
    submission = world.submission(Behaviour.RUNS_ON)
    with pytest.raises(kind, match=words) as caught:
        world.connect().submit(submission)
    assert caught.value.key == submission.key
    assert server.batch.jobs() == []


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_a_refused_question_says_nothing_of_the_jobs(
    server: GoogleServer, world: GoogleWorld, case: str
) -> None:
    refusal, kind, _ = REFUSALS[case]
    server.refusals["ListJobs"] = refusal
    expected = AccessError if kind is AccessError else TransientError
    with pytest.raises(expected) as caught:
        world.connect().observe([Job(key="a/b/c/-1/1")])
    if isinstance(caught.value, TransientError):
        wait = None if refusal.retry_seconds is None else timedelta(seconds=refusal.retry_seconds)
        assert caught.value.retry_after == wait


def test_an_answer_that_is_lost_starts_nothing_twice(
    server: GoogleServer, world: GoogleWorld
) -> None:
    server.lose_answer_of = "CreateJob"
    submission = world.submission(Behaviour.RUNS_ON)
    backend = world.connect()
    with pytest.raises(TransientError):
        backend.submit(submission)
    job = backend.submit(submission)
    assert list(backend.list_jobs()) == [job]
    assert len(server.batch.jobs()) == 1


def test_the_same_creation_twice_is_one_job(server: GoogleServer, world: GoogleWorld) -> None:
    """By its request id: a second creation of another id would be refused, and told as None."""
    submission = world.submission(Behaviour.RUNS_ON)
    first = world.connect()._client.create(submission)
    again = world.connect()._client.create(submission)
    assert first is not None
    assert again is not None
    assert again.uid == first.uid
    assert len(server.batch.jobs()) == 1


def test_an_unknown_region_is_named(server: GoogleServer, tmp_path: Path) -> None:
    world = GoogleWorld(server, tmp_path, region="moon-east1")
    with pytest.raises(RejectedError, match="options project and region"):
        world.connect().submit(world.submission(Behaviour.RUNS_ON))


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_nobody_there_is_no_answer(server: GoogleServer, tmp_path: Path, transport: str) -> None:
    world = GoogleWorld(server, tmp_path, endpoint="http://127.0.0.1:1", transport=transport)
    backend = world.connect()
    for ask in (
        lambda: backend.submit(world.submission(Behaviour.RUNS_ON)),
        lambda: backend.observe([Job(key="a/b/c/-1/1")]),
        lambda: backend.release(Job(key="a/b/c/-1/1")),
    ):
        with pytest.raises(TransientError):
            ask()


def test_a_job_that_somebody_deleted_has_vanished(server: GoogleServer, world: GoogleWorld) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    (known,) = server.batch.jobs()
    server.batch.delete(_named(known.name))
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED


def test_a_job_that_is_being_deleted_is_neither_over_nor_started_again(
    server: GoogleServer, world: GoogleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_backend, "RELEASE_SECONDS", 0)
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    (known,) = server.batch.jobs()
    known.status.state = "DELETION_IN_PROGRESS"
    assert backend.observe([job])[job.key].event is None  # hosts go on for a while
    assert backend.submit(submission) == job
    assert server.calls.count("CreateJob") == 1
    backend.release(job)
    server.batch.delete(_named(known.name))
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED


def _named(name: str) -> Any:
    from google.cloud import batch_v1

    return batch_v1.DeleteJobRequest(name=name)


def test_one_look_is_a_list_and_what_has_ended_does_not_make_it_longer(
    server: GoogleServer, tmp_path: Path
) -> None:
    world = GoogleWorld(server, tmp_path)
    world.slots = 20
    server.batch.lack = "nothing runs here"
    backend = world.connect()
    over = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(6)]
    for job, known in zip(over, server.batch.jobs(), strict=True):
        backend.release(job)
        known.create_time -= timedelta(days=1)
    jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(4)]
    server.batch.page_size = 4
    server.calls.clear()
    seen = backend.observe(jobs)
    assert {one.event for one in seen.values()} == {JobEvent.SUBMITTED}
    assert len(server.calls) <= 3
    server.calls.clear()
    backend.observe(jobs)
    assert server.calls == ["ListJobs"] * 2  # the second page shows that nothing older is wanted


def test_output_is_read_over_several_pages(server: GoogleServer, tmp_path: Path) -> None:
    server.batch.page_size = 1
    world = GoogleWorld(server, tmp_path)
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.PRINTS))
    world.wait(backend, job, ENDS)
    whole = backend.read_log(job, 0)
    assert whole.next_offset == len(whole.text.encode())
    again = world.connect().read_log(Job(key=job.key), 11)
    assert again.text.encode() == whole.text.encode()[11:]
    assert backend.read_log(job, whole.next_offset).text == ""


PAGE = (Path(__file__).parents[2] / "docs" / "backends" / "google.md").read_text(encoding="utf-8")
PERMISSIONS = {
    "CancelCustomJob": "aiplatform.customJobs.cancel",
    "CancelJob": "batch.jobs.cancel",
    "CreateCustomJob": "aiplatform.customJobs.create",
    "CreateJob": "batch.jobs.create",
    "CreateQueuedResource": "tpu.nodes.create",
    "DeleteQueuedResource": "tpu.nodes.delete",
    "GetGuestAttributes": "tpu.nodes.get",
    "GetJob": "batch.jobs.get",
    "GetQueuedResource": "tpu.nodes.get",
    "ListCustomJobs": "aiplatform.customJobs.list",
    "ListJobs": "batch.jobs.list",
    "ListLogEntries": "logging.logEntries.list",
    "ListQueuedResources": "tpu.nodes.list",
    "ListTasks": "batch.tasks.list",
}


def test_the_page_lists_the_permissions_of_every_call_and_no_others() -> None:
    services = {name.partition(".")[0] for name in PERMISSIONS.values()}
    listed = set(re.findall(rf"`((?:{'|'.join(services)})\.(?!googleapis)\w+\.\w+)`", PAGE))
    assert listed == set(PERMISSIONS.values())


@pytest.mark.parametrize("kind", [GoogleWorld, VertexWorld, TpuWorld])
def test_a_life_needs_known_permissions_only_and_sends_no_credentials(
    server: GoogleServer, tmp_path: Path, kind: type[GoogleWorld]
) -> None:
    info = server.accounts.add("ours", f"{server.rest_url}/token")
    library: Any = service_account.Credentials  # it has no types
    credentials = library.from_service_account_info(info)
    connection = Connection(client=(credentials, "our-project"))
    world = kind(server, tmp_path)
    backend = world.factory(world.pool(), home=tmp_path, connection=connection)
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    backend.observe([job])
    if isinstance(backend, SupportsLogs):
        backend.read_log(job, 0)
    backend.release(job)
    assert {*server.calls, *server.tpu.calls} <= PERMISSIONS.keys()
    sent = "\n".join(server.received)
    assert job.key in sent
    assert [line for line in info["private_key"].splitlines() if line in sent] == []
    assert repr(connection) == "Connection(host=None, port=None, login=None)"
