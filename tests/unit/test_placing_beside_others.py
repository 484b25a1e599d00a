"""Tasks that wait for room, on the road: a slot that comes free goes to whose turn it is, and not to who asks first."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from spillway.dispatch import Waiting
from spillway.model import Market
from spillway.placement.again import recompute
from spillway.testing.fake_deployment import ON_DEMAND, RESERVED, SPEC, FakeDeployment, running

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.dispatch import TaskRequest

HOUR = timedelta(hours=1)
RESERVED_ONLY = replace(SPEC, markets=frozenset({Market.RESERVED}), checkpoints=False)


@pytest.fixture
def world(tmp_path: Path) -> FakeDeployment:
    return FakeDeployment(tmp_path, pools=(RESERVED, ON_DEMAND))


def free_again(world: FakeDeployment, holder: TaskRequest) -> None:
    lease = running(world.dispatcher.begin(holder))
    world.succeed(lease)
    world.dispatcher.advance(holder, lease.key)


@pytest.fixture
def waiting(world: FakeDeployment) -> TaskRequest:
    """A task that found the reserved slot taken and may go nowhere else; the slot is free now, and it has not asked again."""
    holder = world.request("holder", spec=RESERVED_ONLY)
    world.dispatcher.begin(holder)
    waiting = world.request("waiting", spec=RESERVED_ONLY)
    assert isinstance(world.dispatcher.begin(waiting), Waiting)
    world.clock.advance(timedelta(seconds=10))
    free_again(world, holder)
    return waiting


def test_a_slot_is_left_to_the_task_that_waits_for_it(
    world: FakeDeployment, waiting: TaskRequest
) -> None:
    late = world.request("late", spec=RESERVED_ONLY)
    step = world.dispatcher.begin(late)
    assert isinstance(step, Waiting)
    (reason,) = [p.reason for p in step.unplaced.passed_over if p.can_wait]
    assert reason == "has no free slot beside 1 left to tasks that wait for room"
    assert recompute(step.unplaced) == step.unplaced
    assert running(world.dispatcher.begin(waiting)).pool == "reserved"
    assert isinstance(world.dispatcher.begin(late), Waiting)


def test_who_may_go_elsewhere_goes_elsewhere(world: FakeDeployment, waiting: TaskRequest) -> None:
    assert running(world.dispatcher.begin(world.request("late"))).pool == "on_demand"
    assert running(world.dispatcher.begin(waiting)).pool == "reserved"


def test_a_task_with_a_deadline_goes_first(world: FakeDeployment, waiting: TaskRequest) -> None:
    urgent = replace(RESERVED_ONLY, deadline=world.clock() + 2 * HOUR)
    assert running(world.dispatcher.begin(world.request("urgent", spec=urgent))).pool == "reserved"
    assert isinstance(world.dispatcher.begin(waiting), Waiting)


def test_a_slot_is_not_left_to_a_task_that_no_longer_asks(
    world: FakeDeployment, waiting: TaskRequest
) -> None:
    world.clock.advance(timedelta(minutes=2))
    late = world.request("late", spec=RESERVED_ONLY)
    assert running(world.dispatcher.begin(late)).pool == "reserved"
    assert isinstance(world.dispatcher.begin(waiting), Waiting)


def test_no_slot_is_left_to_a_task_it_is_too_small_for(world: FakeDeployment) -> None:
    holder = world.request("holder", spec=RESERVED_ONLY)
    world.dispatcher.begin(holder)
    world.dispatcher.begin(world.request("on demand 1", spec=SPEC))
    world.dispatcher.begin(world.request("on demand 2", spec=SPEC))
    gang = world.request("gang", spec=replace(SPEC, nodes=2))  # reserved has a single slot
    assert isinstance(world.dispatcher.begin(gang), Waiting)
    free_again(world, holder)
    late = world.request("late", spec=RESERVED_ONLY)
    assert running(world.dispatcher.begin(late)).pool == "reserved"
