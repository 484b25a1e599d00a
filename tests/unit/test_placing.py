"""Tasks with slack and committed capacity, on the road: they wait for tonight, and run then for nothing more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from spillway.dispatch import Waiting
from spillway.placement.again import recompute
from spillway.placement.shifting import WEEKS_BACK
from spillway.testing.fake_deployment import (
    ON_DEMAND,
    RESERVED,
    SPEC,
    SPOT,
    FakeDeployment,
    running,
)

if TYPE_CHECKING:
    from pathlib import Path


HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def world(tmp_path: Path) -> FakeDeployment:
    return FakeDeployment(tmp_path, pools=(RESERVED, ON_DEMAND))


def test_a_task_with_slack_waits_until_the_reserved_slot_is_free(world: FakeDeployment) -> None:
    first = world.request("first", spec=replace(SPEC, work=3 * HOUR))
    holder = running(world.dispatcher.begin(first))
    assert holder.pool == "reserved"
    patient = world.request("patient", spec=replace(SPEC, deadline=world.clock() + 12 * HOUR))
    step = world.dispatcher.begin(patient)
    assert isinstance(step, Waiting)
    assert "on reserved, saves $1.0" in step.unplaced.reason
    (shown,) = world.ledger.waiting(now=world.clock())
    assert (shown.task, shown.unplaced) == (patient.task, step.unplaced)
    assert step.until - world.clock() <= timedelta(minutes=10)
    world.succeed(holder)
    world.dispatcher.advance(first, holder.key)
    lease = running(world.dispatcher.begin(patient))
    assert (lease.pool, lease.marginal_usd_per_hour) == ("reserved", 0)
    assert world.ledger.waiting(now=world.clock()) == []


def test_two_tasks_do_not_wait_for_one_slot(world: FakeDeployment) -> None:
    holder = running(
        world.dispatcher.begin(world.request("first", spec=replace(SPEC, work=3 * HOUR)))
    )
    spec = replace(SPEC, checkpoints=False, work=2 * HOUR, deadline=world.clock() + 11 * HOUR)
    patient, other = world.request("patient", spec=spec), world.request("other", spec=spec)
    first = world.dispatcher.begin(patient)
    assert isinstance(first, Waiting)
    assert first.unplaced.planned is not None
    behind = world.dispatcher.begin(other)
    assert isinstance(behind, Waiting)
    assert behind.unplaced.planned is not None
    assert behind.unplaced.planned.start >= first.unplaced.planned.end
    late = world.request("late", spec=replace(spec, deadline=world.clock() + 7 * HOUR))
    assert running(world.dispatcher.begin(late)).pool == "on_demand"
    again = world.dispatcher.begin(patient)  # its own plan does not stand in its way
    assert isinstance(again, Waiting)
    assert again.unplaced.planned == first.unplaced.planned
    assert recompute(again.unplaced) == again.unplaced
    assert holder.pool == "reserved"


def test_a_nightly_pattern_is_waited_past(tmp_path: Path) -> None:
    """Both slots are taken every night from 22:00 to 02:00, and now until shortly after 20:00."""
    world = FakeDeployment(tmp_path, pools=(replace(RESERVED, slots=2), ON_DEMAND))
    gang = replace(SPEC, nodes=2)
    world.clock.advance(2 * HOUR)
    for night in range(7 * WEEKS_BACK):
        world.clock.advance(20 * HOUR)
        request = world.request(f"night_{night}", spec=replace(gang, work=4 * HOUR))
        lease = running(world.dispatcher.begin(request))
        world.clock.advance(4 * HOUR)
        world.succeed(lease)
        world.dispatcher.advance(request, lease.key)
    world.clock.advance(16 * HOUR)
    evening = world.request("evening", spec=replace(gang, work=2 * HOUR))
    assert running(world.dispatcher.begin(evening)).pool == "reserved"

    def planned(name: str, work: timedelta) -> str:
        spec = replace(SPEC, work=work, deadline=world.clock() + 16 * HOUR)
        step = world.dispatcher.begin(world.request(name, spec=spec))
        assert isinstance(step, Waiting)
        return step.unplaced.reason

    assert "start Fri 02:00 UTC on reserved" in planned("long", 3 * HOUR)
    assert "start Thu 21:00 UTC on reserved" in planned("short", HOUR / 2)


@pytest.mark.parametrize(("slack_minutes", "waits"), [(8, False), (70, False), (72, True)])
def test_a_plan_leaves_time_to_fall_back_on_steady_capacity(
    tmp_path: Path, slack_minutes: int, *, waits: bool
) -> None:
    """The reserved slot, as fast as spot, is free in 70 minutes; on demand, the work takes twice as long as on either."""
    pools = (replace(RESERVED, speed=2.0), replace(SPOT, speed=2.0), ON_DEMAND)
    world = FakeDeployment(tmp_path, pools=pools)
    first = world.request("first", spec=replace(SPEC, work=2 * (2 * HOUR - MINUTE)))
    assert running(world.dispatcher.begin(first)).pool == "reserved"
    world.clock.advance(110 * 60)
    deadline = world.clock() + 4 * HOUR + slack_minutes * MINUTE
    patient = world.request("patient", spec=replace(SPEC, work=4 * HOUR, deadline=deadline))
    step = world.dispatcher.begin(patient)
    if not waits:
        assert running(step).pool == "spot"
        return
    assert isinstance(step, Waiting)
    assert "on reserved" in step.unplaced.reason
    assert recompute(step.unplaced) == step.unplaced


def test_a_task_in_a_hurry_does_not_wait(world: FakeDeployment) -> None:
    running(world.dispatcher.begin(world.request("first", spec=replace(SPEC, work=3 * HOUR))))
    hurried = world.request("hurried", spec=replace(SPEC, deadline=world.clock() + 2 * HOUR))
    assert running(world.dispatcher.begin(hurried)).pool == "on_demand"


def test_a_slot_that_is_always_taken_is_not_waited_for(world: FakeDeployment) -> None:
    running(world.dispatcher.begin(world.request("first", spec=replace(SPEC, work=48 * HOUR))))
    other = world.request("other", spec=replace(SPEC, deadline=world.clock() + 12 * HOUR))
    assert running(world.dispatcher.begin(other)).pool == "on_demand"
