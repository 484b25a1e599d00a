"""A budget on the road: it is the task's, and what its earlier leases cost is gone from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from spillway.errors import NoOfferError
from spillway.placement.again import recompute
from spillway.placement.over_time import LOOK, what_is_left
from spillway.testing.fake_deployment import ON_DEMAND, RESERVED, SPEC, FakeDeployment, running

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.dispatch import Step, TaskRequest
    from spillway.model import Lease

HOUR = timedelta(hours=1)
TEN_HOURS = replace(SPEC, work=10 * HOUR, max_cost_usd=Decimal("10.60"))


@pytest.fixture
def world(tmp_path: Path) -> FakeDeployment:
    """Nothing but capacity at a dollar an hour."""
    return FakeDeployment(tmp_path, pools=(ON_DEMAND,))


def lose(world: FakeDeployment, request: TaskRequest, lease: Lease) -> Step:
    """Let the provider take the lease's capacity back, and its task be placed again."""
    world.providers[lease.pool].preempt(lease.key)
    return world.dispatcher.advance(request, lease.key)


def test_what_was_lost_is_spent_all_the_same(world: FakeDeployment) -> None:
    request = world.request(spec=TEN_HOURS)
    lease = running(world.dispatcher.begin(request))
    world.clock.advance(8 * HOUR)
    with pytest.raises(NoOfferError) as refused:
        lose(world, request, lease)
    (reason,) = refused.value.reasons.values()
    assert reason.startswith("is expected to cost $10.0")
    assert reason.endswith(" more; $8.00 of the budget of $10.60 is spent")
    with pytest.raises(NoOfferError):  # neither for another try
        world.dispatcher.begin(replace(request, owner_try=2))


def test_what_is_left_of_the_budget_does_for_the_work_that_is_left(world: FakeDeployment) -> None:
    request = world.request(spec=TEN_HOURS)
    lease = running(world.dispatcher.begin(request))
    world.clock.advance(8 * HOUR)
    world.say(lease, step=80, total_steps=100, checkpoint_step=80)
    again = running(lose(world, request, lease))
    placement = world.ledger.placement(again.key)
    assert placement.task is not None
    assert (placement.task.work, placement.task.spent_usd) == (2 * HOUR, 8)
    assert recompute(placement) == placement


def test_what_a_lease_has_added_is_gone_before_it_has_ended(world: FakeDeployment) -> None:
    """Or a job would be asked to leave for a pool that it may not go to any more."""
    lease = running(world.dispatcher.begin(world.request(spec=TEN_HOURS)))
    world.clock.advance(6 * HOUR - LOOK)
    left = what_is_left(TEN_HOURS, lease, None, world.clock())
    assert left.budget_left_usd == Decimal("4.60")
    unlimited = what_is_left(replace(TEN_HOURS, max_cost_usd=None), lease, None, world.clock())
    assert unlimited.budget_left_usd is None


def test_capacity_that_adds_nothing_is_never_too_dear(tmp_path: Path) -> None:
    world = FakeDeployment(tmp_path, pools=(replace(RESERVED, slots=1), ON_DEMAND))
    other = running(world.dispatcher.begin(world.request("other")))
    request = world.request(spec=TEN_HOURS)
    lease = running(world.dispatcher.begin(request))
    assert (other.pool, lease.pool) == ("reserved", "on_demand")
    world.clock.advance(20 * HOUR)
    world.succeed(other)
    world.dispatcher.advance(world.request("other"), other.key)
    assert running(lose(world, request, lease)).pool == "reserved"


def test_a_task_that_starts_over_has_its_budget_again(world: FakeDeployment) -> None:
    request = world.request(spec=TEN_HOURS)
    lease = running(world.dispatcher.begin(request))
    world.clock.advance(8 * HOUR)
    with pytest.raises(NoOfferError):
        lose(world, request, lease)
    cleared = replace(request, owner_try=2, owner_clear=1)
    with pytest.raises(NoOfferError):
        world.dispatcher.begin(cleared)
    over = running(world.dispatcher.begin(replace(cleared, fresh_start=True)))
    world.clock.advance(8 * HOUR)
    with pytest.raises(NoOfferError):
        lose(world, replace(cleared, fresh_start=True), over)
