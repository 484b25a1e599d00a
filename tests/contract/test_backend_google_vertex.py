"""The contract of Vertex AI, and what is its own: twins, words of its errors, waiting for machines."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from contract.google_world import VertexWorld, live_and_die
from spillway.errors import AccessError, CapacityError, RejectedError, TransientError
from spillway.model import JobEvent
from spillway.testing.backend_suite import BackendContract, Behaviour
from spillway.testing.google_machines import Refusal, permission_denied
from spillway.testing.google_server import GoogleServer, google_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleServer]:
    with google_server(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture
def world(server: GoogleServer, tmp_path: Path) -> Iterator[VertexWorld]:
    world = VertexWorld(server, tmp_path)
    yield world
    server.refusals.clear()
    server.vertex.queues = False
    world.release_all()


class TestGoogleVertex(BackendContract):
    @pytest.fixture
    def world(self, server: GoogleServer, tmp_path: Path) -> Iterator[VertexWorld]:
        world = VertexWorld(server, tmp_path)
        yield world
        world.release_all()


@pytest.mark.parametrize(
    ("message", "code", "event"),
    [
        ("The job was preempted because its Spot VMs were reclaimed.", 10, JobEvent.PREEMPTED),
        (
            "Resources are insufficient in region: us-central1. Please try a different region.",
            8,
            JobEvent.PREEMPTED,
        ),
        ("The following quota metrics exceed quota limits: gpus", 8, JobEvent.PREEMPTED),
        ("Internal error occurred for the current attempt.", 13, JobEvent.VANISHED),
        ("The image cannot be pulled.", 3, JobEvent.FAILED),
        (
            "The replica workerpool0-0 ran out-of-memory and exited with a non-zero status of 137(SIGKILL).",
            3,
            JobEvent.FAILED,
        ),
    ],
)
def test_how_a_job_fails_is_told_apart(
    server: GoogleServer, world: VertexWorld, message: str, code: int, event: JobEvent
) -> None:
    server.vertex.queues = True
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    server.vertex.fail_all(message, code)
    seen = backend.observe([job])[job.key]
    assert seen.event is event
    assert message in seen.detail
    assert ("memory_gib" in seen.detail) == ("137" in message)


def test_of_two_that_were_started_at_once_the_younger_is_cancelled(
    server: GoogleServer, world: VertexWorld
) -> None:
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    twins = [backend._client.create(submission) for _ in range(2)]
    job = backend.submit(submission)
    assert job.provider_id == twins[0].number
    assert list(world.connect().list_jobs()) == [job]
    assert backend.observe([job])[job.key].event is JobEvent.STARTED


def test_an_answer_that_is_lost_starts_nothing_twice(
    server: GoogleServer, world: VertexWorld
) -> None:
    server.lose_answer_of = "CreateCustomJob"
    submission = world.submission(Behaviour.RUNS_ON)
    backend = world.connect()
    with pytest.raises(TransientError):
        backend.submit(submission)
    job = backend.submit(submission)
    assert list(backend.list_jobs()) == [job]


def test_refusals_are_errors_by_what_to_do(server: GoogleServer, world: VertexWorld) -> None:
    quota = (
        "The following quota metrics exceed quota limits: custom_model_training_nvidia_h100_gpus"
    )
    cases = (
        (permission_denied("aiplatform.customJobs.create"), AccessError, "customJobs.create"),
        (Refusal("RESOURCE_EXHAUSTED", quota), CapacityError, "more quota"),
        (Refusal("INVALID_ARGUMENT", "Machine type a9 is not supported"), RejectedError, "a9"),
        (Refusal("UNAVAILABLE", "try again"), TransientError, "later"),
    )
    for refusal, kind, words in cases:
        server.refusals["CreateCustomJob"] = refusal
        with pytest.raises(kind, match=words):
            world.connect().submit(world.submission(Behaviour.RUNS_ON))


@pytest.mark.parametrize("status", ["FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND"])
def test_a_job_that_ends_as_it_is_cancelled_is_no_error(
    server: GoogleServer, world: VertexWorld, status: str
) -> None:
    """Over REST each of the first two is a bad request."""
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    server.refusals["CancelCustomJob"] = Refusal(status, "The job is not active.")
    backend._client.cancel(backend._client.name_of(str(job.provider_id)))
    assert server.calls[-1] == "CancelCustomJob"


def test_an_unknown_region_is_named(server: GoogleServer, tmp_path: Path) -> None:
    world = VertexWorld(server, tmp_path, region="moon-east1")
    with pytest.raises(RejectedError, match="options project and region"):
        world.connect().submit(world.submission(Behaviour.RUNS_ON))


def test_a_job_that_waits_too_long_goes_elsewhere(server: GoogleServer, world: VertexWorld) -> None:
    server.vertex.queues = True
    world.options["start_within"] = "PT10M"
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    clock = backend._clock
    backend._clock = lambda: clock() + timedelta(minutes=11)
    assert backend.observe([job])[job.key].event is JobEvent.PREEMPTED


def test_a_job_lives_over_rest(server: GoogleServer, tmp_path: Path) -> None:
    world = VertexWorld(server, tmp_path, endpoint=server.rest_url, transport="rest")
    backend = world.connect()
    live_and_die(world, backend)
    server.refusals["CreateCustomJob"] = permission_denied("aiplatform.customJobs.create")
    with pytest.raises(AccessError, match=r"customJobs\.create"):
        backend.submit(world.submission(Behaviour.RUNS_ON))
    server.refusals.clear()


def test_a_job_that_is_being_cancelled_is_neither_over_nor_started_again(
    server: GoogleServer, world: VertexWorld
) -> None:
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    (known,) = [one for one in server.vertex.jobs() if one.name.endswith(f"/{job.provider_id}")]
    known.state = "JOB_STATE_CANCELLING"
    assert backend.observe([job])[job.key].event is None  # machines go on for a while
    assert backend.submit(submission) == job
    assert list(backend.list_jobs()) == [job]
    known.state = "JOB_STATE_CANCELLED"
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED


def test_one_look_is_one_list_however_many_jobs(server: GoogleServer, world: VertexWorld) -> None:
    server.vertex.queues = True
    world.slots = 9
    backend = world.connect()
    jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(9)]
    server.calls.clear()
    assert len(backend.observe(jobs)) == 9
    assert server.calls == ["ListCustomJobs"]
