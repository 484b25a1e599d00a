"""How much room Google says that there is, over the wire."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from contract.google_world import GoogleWorld, TpuWorld, VertexWorld
from spillway.backends.google.capacity import ROOM_AGE
from spillway.errors import AccessError, TransientError
from spillway.model import Market, Pool
from spillway.testing.backend_suite import Behaviour
from spillway.testing.google_machines import Refusal, permission_denied
from spillway.testing.google_server import GoogleServer, google_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    cloud.tpu.queues = False


class ReservedWorld(GoogleWorld):
    slots = 5

    def pool(self) -> Pool:
        return replace(super().pool(), market=Market.RESERVED)


class ReservedVertexWorld(VertexWorld):
    slots = 5

    def pool(self) -> Pool:
        return replace(super().pool(), market=Market.RESERVED)


def test_what_is_left_of_a_reservation_is_free(server: GoogleServer, tmp_path: Path) -> None:
    server.compute.reserve("ours", "us-central1-a", count=4, used=1)
    server.compute.reserve("ours", "us-central1-b", count=2, used=1)
    server.compute.reserve("ours", "europe-west4-a", count=9)
    server.compute.reserve("others", "us-central1-a", count=9)
    assert ReservedWorld(server, tmp_path, reservation="ours").connect().free_slots() == 4
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
    end = now + timedelta(days=2)
    server.compute.reserve("ours", "us-central1-a", count=3, until=end)
    backend = world.connect()
    assert backend.free_slots() == 3
    assert backend._capacity.room().ends_at == end


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
    assert len(server.compute.asked) == 1
    server.compute.quotas["us-central1"] = {SPOT_H100: (8, 8)}
    now += ROOM_AGE + timedelta(seconds=1)
    assert backend.free_slots() == 0
    assert backend._capacity.room().asked_at == now


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
