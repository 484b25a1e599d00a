"""The policy over time on the road: tasks with a deadline wait for spot, leave it, and come back."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from spillway.catalog.value_tables import ValueTables
from spillway.checkpoints import open_store
from spillway.cli import main
from spillway.dispatch import Finished, Waiting
from spillway.model import Lease, LeaseState, Placement, TaskSpec
from spillway.model.codec import decode
from spillway.moves import AT_ONCE, HEAR_WITHIN, pace_kept
from spillway.placement.again import recompute, recompute_move
from spillway.placement.availability_prior import prior
from spillway.placement.over_time import LOOK, Weighed, running_job, weigh
from spillway.placement.value_table import build_table
from spillway.runtime.stop_request import read_stop_request
from spillway.testing.fake_deployment import (
    ON_DEMAND,
    SPEC,
    SPOT,
    TABLES,
    FakeDeployment,
    Fate,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spillway.dispatch import Dispatcher, TaskRequest

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
    return reconsidered(world, lease)


def reconsidered(world: FakeDeployment, lease: Lease) -> Lease:
    (seen,) = looked_at(world, [lease])
    return seen


def looked_at(world: FakeDeployment, leases: Sequence[Lease]) -> list[Lease]:
    """Ask of all leases in one look whether they should move; return them as they are then."""
    seen = [world.ledger.lease(lease.key) for lease in leases]
    heard = {lease.key: world.dispatcher.heartbeat(lease) for lease in seen}
    said = {key: heartbeat for key, heartbeat in heard.items() if heartbeat is not None}
    world.dispatcher.reconsider(seen, said)
    return [world.ledger.lease(lease.key) for lease in leases]


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
    task = spec(world, work=2 * HOUR, deadline=world.clock() + 4 * HOUR)
    lease = running(world.dispatcher.begin(world.request(spec=task)))
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


def started_late(world: FakeDeployment, work: timedelta = 8 * HOUR) -> tuple[TaskRequest, Lease]:
    """Return a task that began on demand, and has since gained time: its work went faster than was thought."""
    task = spec(world, work=work, deadline=world.clock() + work + timedelta(minutes=2))
    request = world.request(spec=task)
    lease = begun_on_demand(world, request)
    began = world.clock()
    world.clock.advance(work / 8)
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
    assert world.ledger.move(lease.key) is None
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


def test_why_a_job_moved_is_kept_and_can_be_made_again(world: FakeDeployment) -> None:
    _, lease = started_late(world)
    world.providers["spot"].has_capacity = True
    observed(world, lease)
    move = world.ledger.move(lease.key)
    assert move is not None
    assert (move.held, move.to, move.decided_at) == ("on_demand", "spot", world.clock())
    assert move.task.work == 4 * HOUR
    assert [passed.offer.pool for passed in move.passed_over] == ["on_demand", "spot"]
    assert all("is expected to complete for" in passed.reason for passed in move.passed_over)
    assert recompute_move(move, table_of=TABLES.get) == move
    changed = replace(move, reason="because")
    assert recompute_move(changed, table_of=TABLES.get) != changed


def test_a_lease_is_explained_from_the_books_alone(
    world: FakeDeployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, lease = started_late(world, 2 * HOUR)  # more takes seconds to work out again
    world.providers["spot"].has_capacity = True
    observed(world, lease)
    ledger = ["--ledger", f"sqlite:///{tmp_path}/ledger.db"]
    assert main(["explain", lease.key, *ledger]) == 0
    said = capsys.readouterr().out
    assert "on on_demand." in said
    assert "to leave on_demand, to go on on spot." in said
    assert said.count("it is equal") == 2
    with sqlite3.connect(tmp_path / "ledger.db") as books:
        books.execute("UPDATE move SET document = json_set(document, '$.to', 'elsewhere')")
    assert main(["explain", lease.key, *ledger]) == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert main(["explain", "nobody", *ledger]) == 1
    assert "the ledger has no lease nobody" in capsys.readouterr().err
    assert main(["explain", "nobody", "--ledger", f"sqlite:///{tmp_path}/none.db"]) == 1
    assert "there is no ledger" in capsys.readouterr().err


def three_started_late(folder: Path) -> tuple[FakeDeployment, list[TaskRequest], list[Lease]]:
    """Return three tasks on demand that have gained time, and one free slot of spot capacity."""
    pools = (replace(POOLS[0], slots=9), replace(ON_DEMAND, slots=3))
    world = FakeDeployment(folder, pools=pools)
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
    world.dispatcher.observe("on_demand", leases)
    world.providers["spot"].has_capacity = True
    return world, requests, leases


def test_no_more_jobs_leave_for_a_pool_than_it_has_room_for(tmp_path: Path) -> None:
    world, requests, leases = three_started_late(tmp_path)
    for lease in leases:
        observed(world, lease)
        used = world.ledger.usage(world.pools, now=world.clock(), cool_down=HOUR)
        assert used["spot"].promised_slots == 1
    world.providers["on_demand"].preempt(leases[0].key)
    assert running(world.dispatcher.advance(requests[0], leases[0].key)).pool == "spot"
    used = world.ledger.usage(world.pools, now=world.clock(), cool_down=HOUR)
    assert (used["spot"].leased_slots, used["spot"].promised_slots) == (1, 0)


def test_jobs_looked_at_together_are_promised_no_slot_twice(tmp_path: Path) -> None:
    world, _, leases = three_started_late(tmp_path)
    assert looked_at(world, leases)[0].state is LeaseState.MOVING
    used = world.ledger.usage(world.pools, now=world.clock(), cool_down=HOUR)
    assert used["spot"].promised_slots == 1


def test_a_job_that_cannot_be_asked_keeps_no_other_from_it(tmp_path: Path) -> None:
    world, _, leases = three_started_late(tmp_path)
    world.providers["spot"].slots = 3
    requests = Path(urlsplit(world.store_url).path) / leases[0].submission.prefix / "requests"
    requests.parent.mkdir(parents=True)
    requests.write_text("not a folder")
    states = [lease.state for lease in looked_at(world, leases)]
    assert states == [LeaseState.RUNNING, LeaseState.MOVING, LeaseState.MOVING]
    requests.unlink()
    world.clock.advance(LOOK)
    assert looked_at(world, leases[:1])[0].state is LeaseState.MOVING


def test_what_a_look_reads_does_not_grow_with_the_jobs(tmp_path: Path) -> None:
    slots = 30
    pools = (replace(POOLS[0], slots=slots), replace(ON_DEMAND, slots=slots))
    world = FakeDeployment(tmp_path, pools=pools)
    for number in range(slots):
        running(world.dispatcher.begin(world.request(f"task{number}", spec=spec(world))))
    leases = world.ledger.open_leases()
    world.dispatcher.observe("spot", leases)
    leases = world.ledger.open_leases()

    def calls(some: Sequence[Lease]) -> int:
        fate = Fate()
        process = world.new_process(fate)
        process.reconsider(some, {})
        first = fate.calls
        world.clock.advance(LOOK)
        process.reconsider(some, {})
        return fate.calls - first

    assert calls(leases) == calls(leases[:1]) <= 8
    assert {lease.state for lease in world.ledger.open_leases()} == {LeaseState.RUNNING}


def test_nothing_is_remembered_of_leases_that_nobody_watches(tmp_path: Path) -> None:
    """They end in workers: the process that looks at them only sees that they are not watched any more."""
    world = FakeDeployment(tmp_path, pools=(replace(POOLS[0], slots=9), ON_DEMAND))
    triggerer = world.new_process()
    ahead = spec(world, deadline=world.clock() + 20 * HOUR)
    sizes = []
    for day in range(4):
        requests = [world.request(f"{day}-{number}", spec=ahead) for number in range(5)]
        leases = [running(world.dispatcher.begin(request)) for request in requests]
        world.dispatcher.observe("spot", leases)
        triggerer.reconsider(world.ledger.open_leases(), {})
        sizes.append([len(one) for one in remembered_of_leases(triggerer)])
        for request, lease in zip(requests, leases, strict=True):
            world.succeed(lease)
            world.dispatcher.advance(request, lease.key)
        world.clock.advance(LOOK)
    assert sizes == 4 * [[5, 5, 5]]
    triggerer.reconsider([], {})
    assert not any(remembered_of_leases(triggerer))


def remembered_of_leases(process: Dispatcher) -> list[dict[str, object]]:
    moves = process._moves
    return [dict(moves._tasks), dict(moves._looked_at), dict(moves._lookout._specs)]


def test_a_job_stays_until_its_value_table_is_made_aside(tmp_path: Path) -> None:
    left_aside: list[Callable[[], object]] = []
    world = FakeDeployment(tmp_path, pools=POOLS, tables=ValueTables(aside=left_aside.append))
    _, lease = started_late(world)
    world.providers["spot"].has_capacity = True
    assert observed(world, lease).state is LeaseState.RUNNING
    assert len(left_aside) == 1
    assert observed(world, lease).state is LeaseState.RUNNING
    assert len(left_aside) == 1  # what is on its way is not asked for again
    left_aside.pop()()
    assert observed(world, lease).state is LeaseState.MOVING  # without waiting for a minute


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


def test_a_job_that_is_looked_at_rarely_leaves_in_time(world: FakeDeployment) -> None:
    """Looks come every five minutes; at a slack of four minutes more than a start takes, the next one would be too late."""
    start = SPEC.restart_overhead + ON_DEMAND.restart_overhead
    deadline = world.clock() + 8 * HOUR + start + timedelta(minutes=34)
    hurried = spec(world, deadline=deadline)
    lease = running(world.dispatcher.begin(world.request(spec=hurried)))
    assert lease.pool == "spot"
    for _ in range(6):
        assert observed(world, lease).state is LeaseState.RUNNING
        world.clock.advance(timedelta(minutes=5))  # in which it does nothing
    assert deadline - world.clock() - 8 * HOUR == start + timedelta(minutes=4)
    assert observed(world, lease).state is LeaseState.MOVING


SECONDS = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("pauses", "jobs", "pace"),
    [
        ([], 1, LOOK),
        ([5], 50, LOOK),
        (5 * [5], 12 * AT_ONCE, LOOK),
        (5 * [5], 12 * AT_ONCE + 1, 2 * LOOK),
        (5 * [5], 100 * AT_ONCE, 16 * LOOK),
        (5 * [60], 1, LOOK),
        (5 * [61], 1, 2 * LOOK),
        (5 * [120], 1, 2 * LOOK),
        ([5, 5, 3600, 5, 5], 1, LOOK),  # an outage
        ([5, 5, 60, 70, 65], 1, 2 * LOOK),  # a provider that throttles
    ],
)
def test_the_pace_is_what_was_kept(pauses: list[int], jobs: int, pace: timedelta) -> None:
    assert pace_kept([one * SECONDS for one in pauses], jobs=jobs) == pace


def test_a_job_is_asked_about_before_a_minute_is_over(world: FakeDeployment) -> None:
    lease = running(world.dispatcher.begin(world.request(spec=spec(world))))
    asked_at: list[datetime] = []
    for _ in range(60):
        before = world.dispatcher._moves._looked_at.get(lease.key)
        observed(world, lease)
        after = world.dispatcher._moves._looked_at[lease.key]
        asked_at += [after] if after != before else []
        world.clock.advance(7)
    assert 6 <= len(asked_at) <= 9
    assert max(later - one for one, later in pairwise(asked_at)) <= LOOK


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


def test_a_job_that_cannot_be_heard_is_not_taken_for_one_that_has_done_nothing(
    world: FakeDeployment,
) -> None:
    task = spec(world, deadline=world.clock() + 9 * HOUR)
    lease = running(world.dispatcher.begin(world.request(spec=task)))
    assert lease.pool == "spot"
    world.clock.advance(59 * 60)  # had nothing been done yet, on demand would have to begin now
    world.say(
        lease,
        step=50,
        total_steps=100,
        first_step=1,
        checkpoint_step=50,
        first_progress_at=world.clock(),
    )
    world.dispatcher.observe("spot", [lease])
    lease = world.ledger.lease(lease.key)
    world.dispatcher.reconsider([lease], {}, unheard={lease.key})
    assert asked(world, lease) is None
    assert reconsidered(world, lease).state is LeaseState.RUNNING
    world.new_process().reconsider([lease], {})  # one that has said nothing has done nothing
    assert asked(world, lease) is not None


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
    world.dispatcher = world.new_process()  # without waiting for a minute
    assert reconsidered(world, lease).state is LeaseState.MOVING


def test_a_job_that_would_be_late_runs_on_spot_while_the_last_resort_is_full(
    tmp_path: Path,
) -> None:
    world = FakeDeployment(tmp_path, pools=(POOLS[0], replace(ON_DEMAND, slots=1)))
    other = world.request("other", spec=spec(world, markets=frozenset({ON_DEMAND.market})))
    in_the_way = running(world.dispatcher.begin(other))
    deadline = world.clock() + 8 * HOUR + SPEC.restart_overhead + LOOK / 2
    task = spec(world, work=8 * HOUR, deadline=deadline)
    lease = running(world.dispatcher.begin(world.request("mine", spec=task)))
    assert lease.pool == "spot"
    placement = world.ledger.placement(lease.key)
    assert re.fullmatch(r"run: spot is .*; on_demand, for \S+, is full", placement.reason)
    assert recompute(placement) == placement
    assert observed(world, lease).state is LeaseState.RUNNING
    world.succeed(in_the_way)
    world.dispatcher.advance(other, in_the_way.key)
    world.dispatcher = world.new_process()  # without waiting for a minute
    assert reconsidered(world, lease).state is LeaseState.MOVING


def test_tasks_that_wait_leave_one_another_time_on_the_last_resort(tmp_path: Path) -> None:
    """Three of half an hour each and one slot on demand: who waited to the last would find it taken."""
    world = FakeDeployment(tmp_path, pools=(POOLS[0], replace(ON_DEMAND, slots=1)))
    world.providers["spot"].has_capacity = False
    deadline = world.clock() + 2 * HOUR
    task = spec(world, work=HOUR / 2, deadline=deadline)
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
            elif world.clock() >= held[name].granted_at + HOUR / 2:
                if world.ledger.lease(held[name].key).state is LeaseState.RUNNING:
                    world.succeed(held[name])
                if isinstance(world.dispatcher.advance(request, held[name].key), Finished):
                    ended.append(world.clock())
                    requests.remove(request)
        world.clock.advance(60)
    assert max(ended) <= deadline


def test_a_task_that_was_cleared_while_it_waited_is_not_in_its_own_way(tmp_path: Path) -> None:
    world = FakeDeployment(tmp_path, pools=(POOLS[0], replace(ON_DEMAND, slots=1)))
    world.providers["spot"].has_capacity = False
    request = world.request(spec=spec(world, deadline=world.clock() + 12 * HOUR))
    assert isinstance(world.dispatcher.begin(request), Waiting)
    world.clock.advance(10)  # its run begins anew, and so does its time
    later = replace(request.spec, deadline=world.clock() + 12 * HOUR)
    again = replace(request, spec=later, owner_try=2, owner_clear=1)
    assert isinstance(world.dispatcher.begin(again), Waiting)
