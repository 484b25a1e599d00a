"""How much room Google says that there is, over the wire."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from contract.google_world import GoogleWorld, TpuWorld, VertexWorld
from spillway.backends.google.capacity import ROOM_AGE
from spillway.backends.protocol import SupportsEnd
from spillway.errors import AccessError, TransientError
from spillway.model import Market, Pool, Resources
from spillway.testing.backend_suite import Behaviour
from spillway.testing.google_machines import Refusal, permission_denied
from spillway.testing.google_server import GoogleServer, google_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OF_MACHINES = "projects/our-project/zones/us-central1-a/reservations/ours"
OF_TPUS = "projects/our-project/locations/us-east5-a/reservations/ours"
SPOT_H100 = "PREEMPTIBLE_NVIDIA_H100_GPUS"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleServer]:
    with google_server(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture
def server(cloud: GoogleServer) -> Iterator[GoogleServer]:
    yield cloud
    cloud.compute.reservations, cloud.compute.refusal = {}, None
    cloud.compute.quotas = {"us-central1": {}}
    cloud.compute.asked.clear()
    cloud.tpu.queues, cloud.ahead = False, timedelta(0)


class ReservedWorld(GoogleWorld):
    slots = 5

    def pool(self) -> Pool:
        return replace(super().pool(), market=Market.RESERVED)


class ReservedVertexWorld(ReservedWorld, VertexWorld):
    pass


class ReservedTpuWorld(ReservedWorld, TpuWorld):
    def pool(self) -> Pool:
        return replace(super().pool(), shape=Resources(accelerator="v5p", accelerator_count=4))


def test_what_is_left_of_a_reservation_is_free(server: GoogleServer, tmp_path: Path) -> None:
    server.compute.reserve("ours", "us-central1-a", count=4, used=1)
    server.compute.reserve("ours", "us-central1-b", count=2, used=1)
    server.compute.reserve("ours", "europe-west4-a", count=9)
    server.compute.reserve("others", "us-central1-a", count=9)
    backend = ReservedWorld(server, tmp_path, reservation="ours").connect()
    assert backend.free_slots() == 4
    assert backend.room_said_at() is not None
    zoned = ReservedWorld(server, tmp_path, reservation="ours", zones=["us-central1-b"])
    assert zoned.connect().free_slots() == 1
    path = "projects/our-project/zones/us-central1-a/reservations/ours"
    assert ReservedVertexWorld(server, tmp_path, reservation=path).connect().free_slots() == 4


def test_a_reservation_that_is_not_there_or_over_has_no_room(
    server: GoogleServer, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    world = ReservedWorld(server, tmp_path, reservation="ours")
    assert world.connect().free_slots() == 0
    server.compute.reserve("ours", "us-central1-a", count=4, status="CREATING")
    server.compute.reserve("ours", "us-central1-a", count=4, until=now - timedelta(minutes=1))
    assert world.connect().free_slots() == 0
    assert world.connect().said_end() is None


@pytest.mark.parametrize(
    ("kind", "zone", "name"),
    [
        (ReservedWorld, "us-central1-a", "ours"),
        (ReservedVertexWorld, "us-central1-a", OF_MACHINES),
        (ReservedTpuWorld, "us-east5-a", OF_TPUS),
    ],
)
def test_a_pool_ends_with_the_reservation_that_its_jobs_may_be_on(
    server: GoogleServer, tmp_path: Path, kind: type[ReservedWorld], zone: str, name: str
) -> None:
    now = datetime.now(UTC)
    world = kind(server, tmp_path, reservation=name)
    in_chips = kind is ReservedTpuWorld
    machine = 4 if in_chips else 1
    own = partial(server.compute.reserve, "ours", zone, chips=in_chips)
    own(count=3 * machine, used=machine)
    backend = world.connect()
    assert (backend.free_slots(), backend.said_end()) == (2, None)
    own(count=machine, used=machine, until=now + timedelta(hours=1))  # nothing goes there
    own(count=2 * machine, used=machine, until=now + timedelta(days=2))
    backend = world.connect()
    assert isinstance(backend, SupportsEnd)
    said = backend.said_end()
    assert said is not None
    assert said.at == now + timedelta(days=2)
    assert said.said_at >= now


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_reservation_ends_by_our_own_clock(
    server: GoogleServer, tmp_path: Path, hours: int
) -> None:
    server.ahead = timedelta(hours=hours)
    end = datetime.now(UTC) + timedelta(hours=1)
    server.compute.reserve("ours", "us-central1-a", count=2, until=end + server.ahead)
    backend = ReservedWorld(server, tmp_path, reservation="ours").connect()
    assert backend.free_slots() == 2
    assert abs(backend.said_end().at - end) < timedelta(seconds=5)  # headers have whole seconds


def test_a_reservation_of_tpus_that_compute_engine_does_not_know_says_nothing(
    server: GoogleServer, tmp_path: Path
) -> None:
    backend = ReservedTpuWorld(server, tmp_path, reservation=OF_TPUS).connect()
    assert (backend.free_slots(), backend.said_end()) == (5, None)


def test_quotas_bound_the_room(server: GoogleServer, tmp_path: Path) -> None:
    world = GoogleWorld(server, tmp_path, quotas={SPOT_H100: 8, "CPUS": 208, "UNHEARD_OF": 1})
    world.slots = 5
    assert world.connect().free_slots() == 5
    server.compute.quotas["us-central1"] = {SPOT_H100: (32, 7), "CPUS": (1000, 0)}
    assert world.connect().free_slots() == 3
    server.compute.quotas["us-central1"]["CPUS"] = (400, 390)
    backend = world.connect()
    assert backend.free_slots() == 0
    assert "10 of the quota CPUS are left" in backend._capacity.room().detail


def test_google_is_asked_again_when_its_answer_is_old(server: GoogleServer, tmp_path: Path) -> None:
    world = GoogleWorld(server, tmp_path, quotas={SPOT_H100: 8})
    server.compute.quotas["us-central1"] = {SPOT_H100: (8, 0)}
    backend = world.connect()
    now = datetime.now(UTC)
    backend._capacity._clock = lambda: now
    for _ in range(3):
        assert backend.free_slots() == 1
    assert backend.room_said_at() is None, "a quota says nothing of machines"
    assert len(server.compute.asked) == 1
    server.compute.quotas["us-central1"] = {SPOT_H100: (8, 8)}
    now += ROOM_AGE + timedelta(seconds=1)
    assert backend.free_slots() == 0
    assert backend.room_said_at() == now
    asked_at, now = now, now + ROOM_AGE
    assert backend.room_said_at() == asked_at


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        (permission_denied("compute.regions.get"), AccessError, "compute.regions.get"),
        (Refusal("UNAVAILABLE", "try again"), TransientError, "later"),
        (Refusal("RESOURCE_EXHAUSTED", "Quota exceeded per minute"), TransientError, "slow"),
        (Refusal("NOT_FOUND", "no region moon"), TransientError, "region"),
    ],
)
def test_a_question_that_fails_is_no_answer(
    server: GoogleServer, tmp_path: Path, refusal: Refusal, kind: type[Exception], words: str
) -> None:
    server.compute.refusal = refusal
    world = GoogleWorld(server, tmp_path, quotas={SPOT_H100: 8})
    with pytest.raises(kind, match=words):
        world.connect().free_slots()


def test_a_pool_without_reservation_and_quotas_asks_nothing(
    server: GoogleServer, tmp_path: Path
) -> None:
    worlds: list[Any] = [GoogleWorld(server, tmp_path), VertexWorld(server, tmp_path)]
    for world in worlds:
        assert world.connect().free_slots() == world.slots
    assert server.compute.asked == []


def test_tpus_that_others_wait_for_are_not_free(server: GoogleServer, tmp_path: Path) -> None:
    world = TpuWorld(server, tmp_path)
    world.slots = 4
    backend = world.connect()
    assert backend.free_slots() == 4
    granted = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.free_slots() == 3
    server.tpu.queues = True
    waiting = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.free_slots() == 0
    backend.release(waiting)
    assert backend.free_slots() == 3
    backend.release(granted)
