"""The policy over time on the road: tasks with a deadline wait for spot, leave it, and come back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from spillway.checkpoints import open_store
from spillway.dispatch import Finished, Waiting
from spillway.model import Lease, LeaseState, Placement, TaskSpec
from spillway.model.codec import decode
from spillway.moves import HEAR_WITHIN
from spillway.placement.availability_prior import prior
from spillway.placement.over_time import LOOK, Weighed, running_job, weigh
from spillway.placement.value_table import build_table
from spillway.runtime.stop_request import read_stop_request
from spillway.testing.fake_deployment import ON_DEMAND, SPEC, SPOT, FakeDeployment, running

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.dispatch import TaskRequest

HOUR = timedelta(hours=1)
POOLS = (
    replace(SPOT, preemptions_per_hour=0.2, list_usd_per_hour=Decimal("0.30")),
    ON_DEMAND,
)


@pytest.fixture
def world(tmp_path: Path) -> FakeDeployment:
    return FakeDeployment(tmp_path, pools=POOLS)


def spec(world: FakeDeployment, **changes: Any) -> TaskSpec:
    deadline = world.clock() + 16 * HOUR
    return replace(SPEC, **{"work": 8 * HOUR, "deadline": deadline, **changes})


def observed(world: FakeDeployment, lease: Lease) -> Lease:
    """Look at the lease as the trigger does."""
    world.dispatcher.observe(lease.pool, [world.ledger.lease(lease.key)])
    world.dispatcher.reconsider(world.ledger.lease(lease.key))
    return world.ledger.lease(lease.key)


def asked(world: FakeDeployment, lease: Lease) -> str | None:
    store = open_store(world.store_url)
    request = read_stop_request(store, lease.submission.prefix, lease.token)
    return None if request is None else request.reason


def begun_on_demand(world: FakeDeployment, request: TaskRequest) -> Lease:
    """Place the task while spot has nothing and the deadline is too near to wait."""
    world.providers["spot"].has_capacity = False
    return running(world.dispatcher.begin(request))


def test_a_task_with_time_waits_for_spot_capacity(world: FakeDeployment) -> None:
    world.providers["spot"].has_capacity = False
    request = world.request(spec=spec(world))
    waiting = world.dispatcher.begin(request)
    assert isinstance(waiting, Waiting)
    assert waiting.until - world.clock() <= LOOK
    (offer,) = [p for p in waiting.unplaced.passed_over if p.offer.pool == "on_demand"]
    assert "waiting for" in offer.reason
    world.providers["spot"].has_capacity = True
    assert running(world.dispatcher.begin(request)).pool == "spot"


@pytest.mark.parametrize("has_room", [True, False])
def test_a_slow_pool_that_is_dear_leaves_a_task_the_time_to_wait(
    tmp_path: Path, *, has_room: bool
) -> None:
    slow = replace(ON_DEMAND, name="slow", speed=0.51, list_usd_per_hour=Decimal(100))
    world = FakeDeployment(tmp_path, pools=(*POOLS, slow))
    world.providers["spot"].has_capacity = False
    world.providers["slow"].has_capacity = has_room
    # There is time to start it now on the slow pool, but not a minute more.
    task = spec(world, deadline=world.clock() + 8 * HOUR / 0.51 + timedelta(seconds=30))
    assert isinstance(world.dispatcher.begin(world.request(spec=task)), Waiting)


def test_a_task_without_a_deadline_goes_where_it_can_go_now(world: FakeDeployment) -> None:
    world.providers["spot"].has_capacity = False
    request = world.request(spec=spec(world, deadline=None))
    assert running(world.dispatcher.begin(request)).pool == "on_demand"


def test_a_task_that_saves_nothing_is_not_made_to_wait(world: FakeDeployment) -> None:
    world.providers["spot"].has_capacity = False
    request = world.request(spec=spec(world, checkpoints=False))
    assert running(world.dispatcher.begin(request)).pool == "on_demand"


def test_a_task_that_has_no_time_left_is_not_made_to_wait(world: FakeDeployment) -> None:
    task = spec(world, deadline=world.clock() + 8 * HOUR + timedelta(minutes=1))
    lease = begun_on_demand(world, world.request(spec=task))
    assert lease.pool == "on_demand"


def test_the_decision_can_be_made_again_from_what_was_stored(world: FakeDeployment) -> None:
    lease = running(world.dispatcher.begin(world.request(spec=spec(world))))
    placement = world.ledger.placement(lease.key)
    assert isinstance(placement, Placement)
    weighed = decode(placement.weighed, Weighed)
    model = prior(1)
    again = weigh(weighed.situation, table=build_table(weighed.situation.spec, model), model=model)
    assert again.decision.pool == weighed.decision.pool == lease.pool
    assert again.decision.action == weighed.decision.action
    assert [o.pool for o in again.decision.options] == [o.pool for o in weighed.decision.options]


def test_what_is_believed_of_pools_is_shared_and_survives_the_process(
    world: FakeDeployment,
) -> None:
    world.providers["spot"].has_capacity = False
    first = world.dispatcher.begin(world.request("first", spec=spec(world)))
    assert isinstance(first, Waiting)
    world.clock.advance(600)
    world.new_process()
    second = world.dispatcher.begin(world.request("second", spec=spec(world)))
    assert isinstance(second, Waiting)
    before, after = (decode(step.unplaced.weighed, Weighed) for step in (first, second))
    assert before.situation.state.seen_at is None
    assert after.situation.state == before.state


def started_late(world: FakeDeployment) -> tuple[TaskRequest, Lease]:
    """Return a task that began on demand, and has since gained time: its work went faster than was thought."""
    task = spec(world, deadline=world.clock() + 8 * HOUR + timedelta(minutes=2))
    request = world.request(spec=task)
    lease = begun_on_demand(world, request)
    began = world.clock()
    world.clock.advance(3600)
    world.say(
        lease,
        step=50,
        total_steps=100,
        first_step=1,
        checkpoint_step=50,
        first_progress_at=began,
    )
    return request, lease


def test_a_job_with_time_gained_leaves_for_spot_capacity(world: FakeDeployment) -> None:
    request, lease = started_late(world)
    assert asked(world, lease) is None
    world.providers["spot"].has_capacity = True
    lease = observed(world, lease)
    assert lease.state is LeaseState.MOVING
    assert asked(world, lease) == lease.detail
    assert "spot is expected to complete for" in lease.detail
    world.providers["on_demand"].preempt(
        lease.key
    )  # it saved and stopped, as it would at a preemption
    moved = running(world.dispatcher.advance(request, lease.key))
    assert (moved.pool, moved.number) == ("spot", 2)
    first = world.ledger.lease(lease.key)
    assert first.state is LeaseState.MOVED
    assert "spot is expected" in first.detail
    world.succeed(moved, 1)
    assert isinstance(world.dispatcher.advance(request, moved.key), Finished)
    world.check_books(request.task)


def test_no_more_jobs_leave_for_a_pool_than_it_has_room_for(tmp_path: Path) -> None:
    pools = (replace(POOLS[0], slots=9), replace(ON_DEMAND, slots=3))
    world = FakeDeployment(tmp_path, pools=pools)
    world.providers["spot"].slots = 1  # of the nine that we may lease
    world.providers["spot"].has_capacity = False
    task = spec(world, deadline=world.clock() + 8 * HOUR + timedelta(minutes=2))
    requests = [world.request(name, spec=task) for name in ("first", "second", "third")]
    leases = [running(world.dispatcher.begin(request)) for request in requests]
    began = world.clock()
    world.clock.advance(3600)
    for lease in leases:
        world.say(
            lease,
            step=50,
            total_steps=100,
            first_step=1,
            checkpoint_step=50,
            first_progress_at=began,
        )
    world.providers["spot"].has_capacity = True
    for lease in leases:
        observed(world, lease)
        used = world.ledger.usage(pools, now=world.clock(), cool_down=HOUR)
        assert used["spot"].promised_slots == 1
    world.providers["on_demand"].preempt(leases[0].key)
    assert running(world.dispatcher.advance(requests[0], leases[0].key)).pool == "spot"
    used = world.ledger.usage(pools, now=world.clock(), cool_down=HOUR)
    assert (used["spot"].leased_slots, used["spot"].promised_slots) == (1, 0)


def test_a_look_is_not_due_twice_within_a_minute(world: FakeDeployment) -> None:
    task = spec(world, deadline=world.clock() + 8 * HOUR + timedelta(minutes=2))
    lease = begun_on_demand(world, world.request(spec=task))
    began = world.clock()
    assert observed(world, lease).state is LeaseState.RUNNING  # there is no time to leave
    world.providers["spot"].has_capacity = True
    world.clock.advance(LOOK.total_seconds() / 2)
    world.say(lease, step=99, total_steps=100, first_step=1, first_progress_at=began)
    assert observed(world, lease).state is LeaseState.RUNNING
    world.clock.advance(LOOK.total_seconds() / 2)
    world.say(lease, step=50, total_steps=100, first_step=1, first_progress_at=began)
    assert observed(world, lease).state is LeaseState.MOVING


def test_a_job_that_does_not_hear_is_stopped_in_the_end(world: FakeDeployment) -> None:
    request, lease = started_late(world)
    world.providers["spot"].has_capacity = True
    lease = observed(world, lease)
    assert lease.state is LeaseState.MOVING
    grace = lease.submission.grace_period
    world.clock.advance((HEAR_WITHIN + grace).total_seconds())
    assert observed(world, lease).state is LeaseState.MOVING
    world.clock.advance(1)
    assert observed(world, lease).state is LeaseState.MOVED
    assert world.live == []
    assert running(world.dispatcher.advance(request, lease.key)).pool == "spot"


def test_a_job_that_is_done_before_it_hears_has_succeeded(world: FakeDeployment) -> None:
    request, lease = started_late(world)
    world.providers["spot"].has_capacity = True
    observed(world, lease)
    world.succeed(lease, "done")
    done = world.dispatcher.advance(request, lease.key)
    assert isinstance(done, Finished)
    assert done.result == "done"


@pytest.mark.parametrize(
    ("grace_s", "measured_s", "saved", "state"),
    [
        (0, None, 1, LeaseState.MOVING),  # 43 minutes of work would be lost, of 8 beside the work
        (0, None, 10, LeaseState.RUNNING),
        (30, None, 1, LeaseState.RUNNING),  # time for a last checkpoint
        (30, 45, 1, LeaseState.MOVING),  # it takes longer than the warning
    ],
)
def test_a_job_leaves_spot_before_what_it_would_lose_is_more_than_its_time(
    tmp_path: Path, grace_s: int, measured_s: int | None, saved: int, state: LeaseState
) -> None:
    grace, interval = timedelta(seconds=grace_s), timedelta(hours=1)
    world = FakeDeployment(tmp_path, pools=(replace(POOLS[0], grace_period=grace), ON_DEMAND))
    task = spec(world, deadline=world.clock() + 9 * HOUR)
    lease = running(world.dispatcher.begin(world.request(spec=task)))
    assert lease.pool == "spot"
    measured = None if measured_s is None else interval / 2 + timedelta(seconds=measured_s)
    world.clock.advance(100 * 60)
    world.say(
        lease,
        step=10,
        total_steps=100,
        first_step=1,
        checkpoint_step=saved,
        first_progress_at=world.clock(),
        checkpoint_interval=interval,
        expected_loss=measured,
    )
    assert observed(world, lease).state is state


@pytest.mark.parametrize(("minutes_ago", "left"), [(0, 8), (5, 3), (9, 0)])
def test_a_lease_that_boots_has_the_pool_s_part_of_the_start_before_it_too(
    tmp_path: Path, minutes_ago: int, left: int
) -> None:
    slow = replace(POOLS[0], restart_overhead=timedelta(minutes=6))
    world = FakeDeployment(tmp_path, pools=(slow, ON_DEMAND))
    task = spec(world, restart_overhead=timedelta(minutes=2))
    lease = running(world.dispatcher.begin(world.request(spec=task)))
    placement = world.ledger.placement(lease.key)
    assert placement.task is not None
    now = world.clock() + timedelta(minutes=minutes_ago)
    job = running_job(placement.task, lease, placement.offer, None, now)
    assert job.held is not None
    assert job.held.restart_left == timedelta(minutes=left)


def test_a_move_is_no_loss_of_the_pool(world: FakeDeployment) -> None:
    request, lease = started_late(world)
    world.providers["spot"].has_capacity = True
    observed(world, lease)
    world.providers["on_demand"].preempt(lease.key)
    world.dispatcher.advance(request, lease.key)
    since: datetime = world.clock() - 24 * HOUR
    days = world.ledger.pool_days(POOLS, since=since, now=world.clock())
    assert [day.losses for day in days["on_demand"]] == [0]
    assert not world.ledger.usage(POOLS, now=world.clock(), cool_down=HOUR)[
        "on_demand"
    ].cooling_down


def test_moves_use_up_no_attempts(world: FakeDeployment) -> None:
    task = spec(world, deadline=world.clock() + 8 * HOUR + timedelta(minutes=2), max_attempts=1)
    request = world.request(spec=task)
    lease = begun_on_demand(world, request)
    began = world.clock()
    world.clock.advance(3600)
    world.say(
        lease, step=50, total_steps=100, first_step=1, checkpoint_step=50, first_progress_at=began
    )
    world.providers["spot"].has_capacity = True
    observed(world, lease)
    world.providers["on_demand"].preempt(lease.key)
    assert running(world.dispatcher.advance(request, lease.key)).pool == "spot"


def test_nobody_waits_to_save_less_than_a_tenth_of_a_cent(world: FakeDeployment) -> None:
    """A minute of work: on spot when it is there, and wherever there is room when it is not."""
    soon = world.clock() + timedelta(minutes=30)
    small = spec(world, work=timedelta(minutes=1), deadline=soon, max_attempts=5)
    assert running(world.dispatcher.begin(world.request("now", spec=small))).pool == "spot"
    world.providers["spot"].has_capacity = False
    lease = running(
        world.dispatcher.begin(
            world.request("later", spec=replace(small, work=timedelta(seconds=3)))
        )
    )
    assert lease.pool == "on_demand"


def test_spot_capacity_that_is_there_is_taken(world: FakeDeployment) -> None:
    for name in ("first", "second"):
        assert running(world.dispatcher.begin(world.request(name, spec=spec(world)))).pool == "spot"
        world.clock.advance(60)


def test_a_job_keeps_what_it_has_while_the_last_resort_is_full(tmp_path: Path) -> None:
    world = FakeDeployment(tmp_path, pools=(POOLS[0], replace(ON_DEMAND, slots=1)))
    deadline = world.clock() + 11 * HOUR + SPEC.restart_overhead + LOOK / 2
    task = spec(world, work=8 * HOUR, deadline=deadline)
    lease = running(world.dispatcher.begin(world.request("mine", spec=task)))
    assert lease.pool == "spot"
    other = world.request("other", spec=spec(world, markets=frozenset({ON_DEMAND.market})))
    in_the_way = running(world.dispatcher.begin(other))
    world.clock.advance(3 * 3600)  # it has done nothing, and spot is in time no more
    assert observed(world, lease).state is LeaseState.RUNNING
    world.succeed(in_the_way)
    world.dispatcher.advance(other, in_the_way.key)
    world.new_process().reconsider(world.ledger.lease(lease.key))  # without waiting for a minute
    assert world.ledger.lease(lease.key).state is LeaseState.MOVING


def test_tasks_that_wait_leave_one_another_time_on_the_last_resort(tmp_path: Path) -> None:
    """Three of an hour each and one slot on demand: who waited to the last would find it taken."""
    world = FakeDeployment(tmp_path, pools=(POOLS[0], replace(ON_DEMAND, slots=1)))
    world.providers["spot"].has_capacity = False
    deadline = world.clock() + 4 * HOUR
    task = spec(world, work=HOUR, deadline=deadline)
    requests = [world.request(name, spec=task) for name in "abc"]
    held: dict[str, Lease] = {}
    ended: list[datetime] = []
    while requests:
        for request in list(requests):
            name = request.task.task_id
            if name not in held:
                step = world.dispatcher.begin(request)
                if not isinstance(step, Waiting):
                    held[name] = running(step)
            elif world.clock() >= held[name].granted_at + HOUR:
                if world.ledger.lease(held[name].key).state is LeaseState.RUNNING:
                    world.succeed(held[name])
                if isinstance(world.dispatcher.advance(request, held[name].key), Finished):
                    ended.append(world.clock())
                    requests.remove(request)
        world.clock.advance(60)
    assert max(ended) <= deadline
