"""The contract of Cloud TPU, as far as it applies, with the startup script really run; and what is its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from contract.google_world import TpuWorld
from spillway.errors import AccessError, CapacityError, RejectedError, TransientError
from spillway.model import JobEvent, Market, Pool
from spillway.testing.backend_suite import ENDS, BackendContract, Behaviour
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
def world(server: GoogleServer, tmp_path: Path) -> Iterator[TpuWorld]:
    world = TpuWorld(server, tmp_path)
    yield world
    server.tpu.queues, server.tpu.refusal = False, None
    server.ahead = timedelta(0)
    world.release_all()


class TestGoogleTpu(BackendContract):
    @pytest.fixture
    def world(self, server: GoogleServer, tmp_path: Path) -> Iterator[TpuWorld]:
        world = TpuWorld(server, tmp_path)
        world.slots = 2
        yield world
        world.release_all()

    def test_live_jobs_are_listed_under_our_key(self, world: TpuWorld) -> None:  # type: ignore[override]
        """Differs: a TPU is there until it is released, whether its job has ended or not."""
        backend = world.connect()
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        over = backend.submit(world.submission(Behaviour.SUCCEEDS))
        world.wait(backend, over, ENDS)
        assert {one.key for one in world.connect().list_jobs()} == {job.key, over.key}
        backend.release(job)
        backend.release(over)
        assert list(backend.list_jobs()) == []

    def test_keys_of_all_kinds_name_different_jobs(self, world: TpuWorld) -> None:  # type: ignore[override]
        """Differs: there is room for three that are not released."""
        world.slots = 3
        super().test_keys_of_all_kinds_name_different_jobs(world, world.connect())


@pytest.mark.parametrize(
    ("initiator", "event"), [("SERVICE", JobEvent.PREEMPTED), ("USER", JobEvent.CANCELLED)]
)
def test_a_tpu_that_is_taken_back_is_told_from_one_that_was_deleted(
    server: GoogleServer, world: TpuWorld, initiator: str, event: JobEvent
) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, job, frozenset({JobEvent.STARTED}))
    server.tpu.suspend_all(initiator)
    assert backend.observe([job])[job.key].event is event
    backend.release(job)
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ("There is no more capacity in the zone", JobEvent.PREEMPTED),
        ("Quota limit 'TPUV5PPodPerProject' has been exceeded", JobEvent.PREEMPTED),
        ("The runtime version is not found", JobEvent.FAILED),
    ],
)
def test_why_no_tpu_came_is_told_apart(
    server: GoogleServer, world: TpuWorld, message: str, event: JobEvent
) -> None:
    server.tpu.queues = True
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    server.tpu.fail_all(message)
    seen = backend.observe([job])[job.key]
    assert seen.event is event
    assert message in seen.detail
    backend.release(job)


def test_a_request_that_waits_too_long_goes_elsewhere(
    server: GoogleServer, world: TpuWorld
) -> None:
    server.tpu.queues = True
    world.options["start_within"] = "PT10M"
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    clock = backend._clock
    backend._clock = lambda: clock() + timedelta(minutes=11)
    assert backend.observe([job])[job.key].event is JobEvent.PREEMPTED


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong_ends_nothing(
    server: GoogleServer, world: TpuWorld, hours: int
) -> None:
    server.tpu.queues, server.ahead = True, timedelta(hours=hours)
    world.options["start_within"] = "PT10M"
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    (known,) = [one for one in server.tpu.resources() if one["name"].endswith(job.provider_id)]
    created = datetime.fromisoformat(known["createTime"]) + server.ahead
    known["createTime"] = created.isoformat()
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    known["createTime"] = (created - timedelta(minutes=11)).isoformat()
    seen = backend.observe([job])[job.key]
    assert seen.event is JobEvent.PREEMPTED
    assert abs(seen.seen_at - datetime.now(UTC)) < timedelta(minutes=1)  # by our own clock


def test_refusals_are_errors_by_what_to_do(server: GoogleServer, world: TpuWorld) -> None:
    cases = (
        (permission_denied("tpu.nodes.create"), AccessError, "tpu.nodes.create"),
        (Refusal("RESOURCE_EXHAUSTED", "Quota exceeded: v5p cores"), CapacityError, "more quota"),
        (Refusal("INVALID_ARGUMENT", "Accelerator v9-8 is unknown"), RejectedError, "v9-8"),
        (Refusal("UNAVAILABLE", "try again"), TransientError, "later"),
    )
    for refusal, kind, words in cases:
        server.tpu.refusal = refusal
        with pytest.raises(kind, match=words):
            world.connect().submit(world.submission(Behaviour.RUNS_ON))


def test_a_slice_of_another_size_and_a_zone_that_there_is_not_are_named(
    server: GoogleServer, world: TpuWorld, tmp_path: Path
) -> None:
    world.slots = 8
    with pytest.raises(RejectedError, match="slices of 1, 2 hosts, and 4"):
        world.connect().submit(replace(world.submission(Behaviour.RUNS_ON), nodes=4))
    elsewhere = TpuWorld(server, tmp_path, zone="moon-east1-a")
    with pytest.raises(RejectedError, match="is not found"):
        elsewhere.connect().submit(elsewhere.submission(Behaviour.RUNS_ON))


def test_nobody_there_is_no_answer(server: GoogleServer, tmp_path: Path) -> None:
    world = TpuWorld(server, tmp_path, endpoint="http://127.0.0.1:1")
    with pytest.raises(TransientError):
        world.connect().submit(world.submission(Behaviour.RUNS_ON))


class ReservedWorld(TpuWorld):
    def pool(self) -> Pool:
        return replace(super().pool(), market=Market.RESERVED)


@pytest.mark.parametrize("options", [{}, {"provisioning": "RESERVATION_BOUND"}])
def test_reserved_tpus_are_asked_for_in_words_that_the_api_has(
    server: GoogleServer, tmp_path: Path, options: dict[str, str]
) -> None:
    name = "projects/our-project/locations/us-east5-a/reservations/ours"
    world = ReservedWorld(server, tmp_path, reservation=name, **options)
    job = world.connect().submit(world.submission(Behaviour.RUNS_ON))
    (asked,) = [one for one in server.tpu.resources() if one["name"].endswith(job.provider_id)]
    assert asked["reservationName"] == name
    assert asked.get("provisioningModel") == options.get("provisioning")
    world.connect().release(job)


def test_calls_of_a_look_do_not_grow_with_jobs(server: GoogleServer, world: TpuWorld) -> None:
    world.slots = 5
    world.options["look_at"] = 2
    backend = world.connect()
    jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(5)]
    for job in jobs:
        server.tpu.leave(str(job.provider_id), exit_code=0)
    ended, calls = [], []
    for _ in range(4):
        del server.tpu.calls[:]
        seen = backend.observe(jobs)
        ended.append(sum(one.event is JobEvent.SUCCEEDED for one in seen.values()))
        calls.append(server.tpu.calls.count("GetGuestAttributes"))
        assert server.tpu.calls.count("ListQueuedResources") == 1
    assert (ended, calls) == ([2, 4, 5, 5], [2, 2, 1, 0])


@pytest.mark.parametrize("kind", ["v5p-8", "v6e-4"])
def test_what_is_asked_for_goes_by_the_market(
    server: GoogleServer, world: TpuWorld, kind: str
) -> None:
    world.options["slices"] = {"1": kind}
    world.connect().submit(world.submission(Behaviour.RUNS_ON))
    (asked,) = [one for one in server.tpu.resources() if "spot" in one]
    assert asked["tpu"]["nodeSpec"][0]["node"]["acceleratorType"] == kind


def test_a_slice_that_is_being_deleted_is_not_given_out_again(
    server: GoogleServer, world: TpuWorld
) -> None:
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    (known,) = [one for one in server.tpu.resources() if one["name"].endswith(job.provider_id)]
    known["state"] = {"state": "DELETING"}
    assert backend.observe([job])[job.key].event is None  # hosts go on for a while
    with pytest.raises(CapacityError, match="is being deleted"):
        backend.submit(submission)
    del server.tpu.calls[:]
    server.tpu.forget(job.provider_id)
    backend.release(job)
    assert "DeleteQueuedResource" not in server.tpu.calls
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED
