"""Pools that refuse, whatever they say of their room: passed over for longer each time, with the reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from operator import sub
from typing import TYPE_CHECKING

import pytest

from spillway.dispatch import Running, Waiting
from spillway.model import LeaseState
from spillway.testing.fake_backend import FakeBackend
from spillway.testing.fake_deployment import ON_DEMAND, SPOT, FakeDeployment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from spillway.backends.protocol import Job
    from spillway.model import Lease, Observation, Pool, Submission

CHEAP = replace(SPOT, slots=9)
DEAR = replace(ON_DEMAND, slots=9)


class SilentBackend:
    """A provider that does not say how much room it has."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend

    def submit(self, submission: Submission) -> Job:
        return self._backend.submit(submission)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        return self._backend.observe(jobs)

    def release(self, job: Job) -> None:
        self._backend.release(job)


class CountingBackend(SilentBackend):
    """One whose backend counts the slots that are not taken."""

    def free_slots(self) -> int:
        return 9


class BoastfulBackend(CountingBackend):
    """One that says itself, each time it is asked, that it has room."""

    def room_said_at(self) -> datetime:
        return self._backend.provider.clock()


class Deployment(FakeDeployment):
    """A deployment of such providers."""

    def __init__(self, folder: Path, kind: type[SilentBackend]) -> None:
        self._kind = kind
        super().__init__(folder, pools=(CHEAP, DEAR))

    def _backend_of(self, pool: Pool) -> SilentBackend:  # type: ignore[override]  # asks for less
        return self._kind(FakeBackend(self.providers[pool.name]))


@pytest.fixture(params=[SilentBackend, CountingBackend])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Deployment:
    return Deployment(tmp_path, request.param)


def launched(world: Deployment, name: str) -> Lease:
    step = world.dispatcher.begin(world.request(name))
    assert isinstance(step, Running)
    return step.lease


def asked(world: Deployment, pool: str = "spot") -> int:
    return world.providers[pool].calls.count("submit")


def tries_of(world: Deployment, moments: Sequence[int]) -> list[int]:
    """Return at which of these seconds a task tries the cheap pool, which has no room."""
    world.providers["spot"].has_capacity = False
    tries = []
    for second, pause in zip(moments, [*map(sub, moments[1:], moments), 0], strict=True):
        before = asked(world)
        lease = launched(world, f"task{second}")
        world.dispatcher.cancel(lease.key, detail="only asked")
        if asked(world) > before:
            tries.append(second)
        world.clock.advance(pause)
    return tries


def test_a_pool_that_goes_on_refusing_is_asked_less_and_less_often(world: Deployment) -> None:
    moments = (0, 10, 29, 30, 60, 89, 90, 209, 210, 449, 450, 929, 930)
    assert tries_of(world, moments) == [0, 30, 90, 210, 450, 930]


def test_a_provider_that_says_it_has_room_is_not_believed_for_long(tmp_path: Path) -> None:
    boastful = Deployment(tmp_path, BoastfulBackend)
    assert tries_of(boastful, (0, 15, 30, 60, 89, 90, 209, 210)) == [0, 15, 30, 90, 210]


def test_a_pool_that_has_room_again_is_used_as_before(world: Deployment) -> None:
    provider = world.providers["spot"]
    provider.has_capacity = False
    for number in range(3):
        launched(world, f"elsewhere{number}")
        world.clock.advance(timedelta(minutes=10))
    provider.has_capacity = True
    back = launched(world, "back")
    assert back.pool == "spot"
    world.dispatcher.observe("spot", [back])  # it is seen to run
    assert launched(world, "next").pool == "spot"
    world.clock.advance(60)
    provider.has_capacity = False
    assert launched(world, "again").pool == "on_demand"
    world.clock.advance(31)  # a new outage, of a pool whose outages were long
    provider.has_capacity = True
    assert launched(world, "too early").pool == "on_demand"
    world.clock.advance(180)
    assert launched(world, "in time").pool == "spot"


def test_a_task_that_waits_is_told_when_the_pool_is_tried_next(world: Deployment) -> None:
    for provider in world.providers.values():
        provider.has_capacity = False
    assert isinstance(world.dispatcher.begin(world.request("first")), Waiting)
    world.clock.advance(10)
    step = world.dispatcher.begin(world.request("second"))
    assert isinstance(step, Waiting)
    assert {
        passed.offer.pool: passed.reason for passed in step.unplaced.passed_over
    } == dict.fromkeys(
        ("spot", "on_demand"),
        "refused or took back capacity 10 s ago, next try in 20 s (chance of room now 25%)",
    )


def test_capacity_that_was_taken_back_is_not_asked_for_at_once(world: Deployment) -> None:
    lease = launched(world, "train")
    assert lease.pool == "spot"
    world.providers["spot"].preempt(lease.key)
    step = world.dispatcher.advance(world.request("train"), lease.key)
    assert isinstance(step, Running)
    assert step.lease.pool == "on_demand"
    assert world.ledger.lease(lease.key).state is LeaseState.PREEMPTED
    world.clock.advance(31)
    assert launched(world, "other").pool == "spot"


def test_another_process_knows_of_the_refusals(world: Deployment) -> None:
    world.providers["spot"].has_capacity = False
    launched(world, "first")
    other = world.new_process()
    step = other.begin(world.request("second"))
    assert isinstance(step, Running)
    assert asked(world) == 1
