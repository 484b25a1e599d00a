"""The road of one task over fake pools: placed, lost, adopted, cancelled, settled, whatever dies in between."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import claim, open_store
from spillway.dispatch import Finished, TaskRequest, Waiting
from spillway.errors import (
    AccessError,
    BackendError,
    LedgerError,
    NoOfferError,
    RejectedError,
    SpecError,
    TaskFailedError,
    TransientError,
)
from spillway.model import Heartbeat, JobEvent, Lease, LeaseState, Market, Resources
from spillway.placement.room import COOL_DOWN
from spillway.reconcile import reconcile
from spillway.runtime.exchange import write_heartbeat
from spillway.testing.fake_deployment import POOLS, SPEC, FakeDeployment, Fate, running
from spillway.testing.stores import Died

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOUR = timedelta(hours=1)


@pytest.fixture
def world(tmp_path: Path) -> FakeDeployment:
    return FakeDeployment(tmp_path)


def attempts(world: FakeDeployment, request: TaskRequest) -> list[tuple[str, LeaseState]]:
    return [(lease.pool, lease.state) for lease in world.ledger.attempts(request.task)]


def assert_nothing_left(world: FakeDeployment) -> None:
    assert world.live == []
    assert world.ledger.open_leases() == []


# ---- one attempt ----------------------------------------------------------------------------------------------


def test_a_task_runs_on_the_cheapest_pool_and_returns_what_its_job_returned(
    world: FakeDeployment,
) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    assert (lease.pool, world.live) == ("reserved", [lease.key])
    world.clock.advance(90 * 60)
    assert running(world.dispatcher.advance(request, lease.key)).state is LeaseState.RUNNING
    world.succeed(lease, {"loss": 1.5})
    done = world.dispatcher.advance(request, lease.key)
    assert isinstance(done, Finished)
    assert done.result == {"loss": 1.5}
    assert_nothing_left(world)
    world.check_books(request.task)


def test_a_job_asks_its_pool_for_the_shape_that_fits_there(world: FakeDeployment) -> None:
    """What would do as well is asked for where only that fits, and not what no slot there has."""
    large = replace(SPEC.resources, cpus=64)
    fits = replace(SPEC.resources, cpus=1)
    spec = replace(SPEC, resources=large, alternatives=(fits,))
    lease = running(world.dispatcher.begin(world.request(spec=spec)))
    assert lease.submission.resources == fits


def test_a_job_that_fails_says_why_in_its_own_words(world: FakeDeployment) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    world.fail(lease, "the loss is not a number")
    with pytest.raises(TaskFailedError, match="the loss is not a number") as failure:
        world.dispatcher.advance(request, lease.key)
    assert (failure.value.key, failure.value.exit_code) == (lease.key, 1)
    assert_nothing_left(world)


def test_a_job_that_ended_well_without_a_result_has_failed(world: FakeDeployment) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    world.providers[lease.pool].succeed(lease.key)
    with pytest.raises(TaskFailedError, match="left no result"):
        world.dispatcher.advance(request, lease.key)
    assert_nothing_left(world)


def test_a_finished_task_is_not_run_again_by_the_next_try(world: FakeDeployment) -> None:
    """The process that settled it died before it could say so."""
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    world.succeed(lease, 7)
    world.dispatcher.advance(request, lease.key)
    again = world.new_process().begin(replace(request, owner_try=2))
    assert isinstance(again, Finished)
    assert again.result == 7
    assert len(world.ledger.attempts(request.task)) == 1


# ---- lost leases ----------------------------------------------------------------------------------------------


def test_a_preempted_task_goes_on_on_the_pool_that_is_then_the_cheapest(
    world: FakeDeployment,
) -> None:
    request = world.request()
    first = running(world.dispatcher.begin(request))
    world.providers["reserved"].preempt(first.key)
    world.providers["reserved"].has_capacity = False
    second = running(world.dispatcher.advance(request, first.key))
    assert (second.pool, second.number) == ("spot", 2)
    assert second.token > first.token
    assert world.live == [second.key]
    assert second.submission.prefix == first.submission.prefix


def test_a_vanished_job_is_placed_again(world: FakeDeployment) -> None:
    request = world.request()
    first = running(world.dispatcher.begin(request))
    world.providers[first.pool].forget(first.key)
    second = running(world.dispatcher.advance(request, first.key))
    assert world.ledger.lease(first.key).state is LeaseState.VANISHED
    assert world.live == [second.key]


def test_attempts_end_when_as_many_leases_are_lost_as_the_task_may_use(
    world: FakeDeployment,
) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    for _ in range(SPEC.max_attempts - 1):
        world.providers[lease.pool].preempt(lease.key)
        lease = running(world.dispatcher.advance(request, lease.key))
    world.providers[lease.pool].preempt(lease.key)
    with pytest.raises(TaskFailedError, match=r"lost 3 leases.*raise max_attempts"):
        world.dispatcher.advance(request, lease.key)
    assert_nothing_left(world)
    assert running(world.dispatcher.begin(replace(request, owner_try=2))).number == 4


def test_a_refusal_is_no_lost_lease(world: FakeDeployment) -> None:
    """A pool that never started the job has used up none of the attempts."""
    request = world.request(spec=replace(SPEC, max_attempts=2))
    full_after_all(world, "reserved")
    first = running(world.dispatcher.begin(request))
    assert (first.number, first.pool) == (2, "spot")
    world.providers["spot"].preempt(first.key)
    assert running(world.dispatcher.advance(request, first.key)).number == 3


def test_a_repeated_advance_finds_the_lease_that_the_first_one_began(world: FakeDeployment) -> None:
    """The process that placed the task again died before it could say so."""
    request = world.request()
    first = running(world.dispatcher.begin(request))
    world.providers[first.pool].preempt(first.key)
    second = running(world.dispatcher.advance(request, first.key))
    again = running(world.new_process().advance(request, first.key))
    assert again.key == second.key
    assert world.live == [second.key]


# ---- providers that refuse ------------------------------------------------------------------------------------


def full_after_all(world: FakeDeployment, pool: str) -> None:
    """Let the provider's slots be taken, by somebody else, between its answer and our submission."""
    provider = world.providers[pool]
    provider.before_submit = lambda: setattr(provider, "has_capacity", False)


def test_a_pool_that_turns_out_full_gives_way_to_the_next_and_keeps_no_lease(
    world: FakeDeployment,
) -> None:
    full_after_all(world, "reserved")
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    assert attempts(world, request) == [
        ("reserved", LeaseState.CANCELLED),
        ("spot", LeaseState.STARTING),
    ]
    assert [held.key for held in world.ledger.open_leases()] == [lease.key]
    world.check_books(request.task)


def test_a_pool_that_has_refused_cools_down(world: FakeDeployment) -> None:
    full_after_all(world, "reserved")
    world.dispatcher.begin(world.request())
    usage = world.ledger.usage(POOLS, now=world.clock(), cool_down=COOL_DOWN)
    assert {name for name, used in usage.items() if used.cooling_down} == {"reserved"}


@pytest.mark.parametrize("kind", [RejectedError, AccessError])
def test_a_refusal_for_good_leaves_no_lease_open(
    world: FakeDeployment, kind: type[BackendError]
) -> None:
    def refuse() -> None:
        raise kind("you may not use this image", backend="fake")

    world.providers["reserved"].before_submit = refuse
    with pytest.raises(kind):
        world.dispatcher.begin(world.request())
    assert_nothing_left(world)


def test_a_lost_answer_keeps_the_lease_and_the_next_try_starts_no_second_job(
    world: FakeDeployment,
) -> None:
    request = world.request()
    provider = world.providers["reserved"]
    provider.before_submit = lambda: setattr(provider, "loses_answers", True)
    with pytest.raises(TransientError):
        world.dispatcher.begin(request)
    held = world.ledger.open_lease(request.task)
    assert held is not None
    assert held.state is LeaseState.GRANTED
    provider.before_submit, provider.loses_answers = None, False
    lease = running(world.new_process().begin(replace(request, owner_try=2)))
    assert (lease.key, lease.owner_try) == (held.key, 2)
    assert world.live == [lease.key]


def test_one_silent_provider_keeps_no_task_from_the_others(world: FakeDeployment) -> None:
    world.providers["reserved"].is_reachable = False
    assert running(world.dispatcher.begin(world.request())).pool == "spot"


def test_a_task_waits_when_no_provider_answers(world: FakeDeployment) -> None:
    for provider in world.providers.values():
        provider.is_reachable = False
    assert isinstance(world.dispatcher.begin(world.request()), Waiting)


def test_a_task_waits_when_only_room_is_lacking(world: FakeDeployment) -> None:
    for number in range(5):
        running(world.dispatcher.begin(world.request(f"other{number}")))
    request = world.request()
    step = world.dispatcher.begin(request)
    assert isinstance(step, Waiting)
    assert step.until > world.clock()
    world.succeed(world.ledger.open_leases()[0])
    world.dispatcher.advance(world.request("other0"), world.ledger.open_leases()[0].key)
    assert running(world.dispatcher.begin(request)).pool == "reserved"


def test_a_task_that_no_pool_can_ever_take_hears_the_reason_of_every_pool(
    world: FakeDeployment,
) -> None:
    spec = replace(SPEC, resources=Resources(cpus=64), markets=frozenset({Market.SPOT}))
    with pytest.raises(NoOfferError) as refusal:
        world.dispatcher.begin(world.request(spec=spec))
    assert set(refusal.value.reasons) == {"reserved", "spot", "on_demand"}
    assert "64 needed" in refusal.value.reasons["spot"]
    assert all(pool in str(refusal.value) for pool in refusal.value.reasons)
    assert_nothing_left(world)


# ---- processes that die ---------------------------------------------------------------------------------------


def dies(call: Callable[[], object]) -> bool:
    try:
        call()
    except Died:
        return True
    return False


@pytest.mark.parametrize("after", [False, True])
def test_wherever_a_process_dies_the_next_try_goes_on_with_one_job(
    tmp_path: Path, after: bool
) -> None:
    for at in count():
        world = FakeDeployment(tmp_path / str(at))
        request = world.request()
        died = dies(partial(world.new_process(Fate(at=at, after=after)).begin, request))
        again = replace(request, owner_try=2)
        lease = running(world.new_process().begin(again))
        assert world.live == [lease.key]
        world.succeed(lease, 1)
        world.dispatcher.advance(again, lease.key)
        assert_nothing_left(world)
        assert attempts(world, request) == [("reserved", LeaseState.SUCCEEDED)]
        if not died:
            return  # it made every call there is


@pytest.mark.parametrize("after", [False, True])
def test_wherever_a_process_dies_while_it_places_a_lost_task_again_there_is_one_job(
    tmp_path: Path, after: bool
) -> None:
    for at in count():
        world = FakeDeployment(tmp_path / str(at))
        request = world.request()
        first = running(world.dispatcher.begin(request))
        world.providers["reserved"].preempt(first.key)
        process = world.new_process(Fate(at=at, after=after))
        died = dies(partial(process.advance, request, first.key))
        second = running(world.new_process().begin(replace(request, owner_try=2)))
        assert second.number == 2
        assert world.live == [second.key]
        world.check_books(request.task)
        if not died:
            return


@pytest.mark.parametrize("after", [False, True])
def test_wherever_a_process_dies_while_a_pool_refuses_the_next_try_gets_a_job(
    tmp_path: Path, after: bool
) -> None:
    for at in count():
        world = FakeDeployment(tmp_path / str(at))
        full_after_all(world, "reserved")
        request = world.request()
        died = dies(partial(world.new_process(Fate(at=at, after=after)).begin, request))
        lease = running(world.new_process().begin(replace(request, owner_try=2)))
        assert world.live == [lease.key]
        assert [held.key for held in world.ledger.open_leases()] == [lease.key]
        if not died:
            return


# ---- who answers for a lease ----------------------------------------------------------------------------------


def test_a_newer_try_adopts_the_job_and_the_older_cannot_cancel_it(world: FakeDeployment) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    adopted = running(world.new_process().begin(replace(request, owner_try=2)))
    assert (adopted.key, adopted.owner_try) == (lease.key, 2)
    assert not world.dispatcher.cancel(lease.key, detail="late", owner_try=1)
    assert world.live == [lease.key]
    assert world.dispatcher.cancel(lease.key, detail="now", owner_try=2)
    assert_nothing_left(world)


def test_a_try_that_was_replaced_takes_nothing_back(world: FakeDeployment) -> None:
    request = world.request()
    world.dispatcher.begin(replace(request, owner_try=2))
    with pytest.raises(LedgerError, match="replaced by try 2"):
        world.dispatcher.begin(request)
    assert len(world.live) == 1


def test_a_process_from_before_a_clear_does_not_stop_what_began_after_it(
    world: FakeDeployment,
) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(replace(request, owner_try=2, owner_clear=1)))
    with pytest.raises(LedgerError, match="replaced"):
        world.dispatcher.begin(request)
    assert world.live == [lease.key]


def test_a_clear_stops_the_old_job_and_starts_anew(world: FakeDeployment) -> None:
    request = world.request()
    old = running(world.dispatcher.begin(request))
    new = running(world.dispatcher.begin(replace(request, owner_try=2, owner_clear=1)))
    assert world.ledger.lease(old.key).state is LeaseState.CANCELLED
    assert world.live == [new.key]


def test_a_cleared_task_runs_again_although_it_had_finished(world: FakeDeployment) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    world.succeed(lease, 1)
    world.dispatcher.advance(request, lease.key)
    again = world.dispatcher.begin(replace(request, owner_try=2, owner_clear=1))
    assert running(again).number == 2


@pytest.mark.parametrize(
    "event", [JobEvent.SUCCEEDED, JobEvent.FAILED, JobEvent.PREEMPTED, JobEvent.CANCELLED]
)
def test_a_clear_settles_a_job_that_is_over_but_not_settled(
    world: FakeDeployment, event: JobEvent
) -> None:
    request = world.request()
    old = running(world.dispatcher.begin(request))
    world.ledger.record(old.key, event, now=world.clock())
    new = running(world.dispatcher.begin(replace(request, owner_try=2, owner_clear=1)))
    assert world.ledger.lease(old.key).ended_at is not None
    assert world.live == [new.key]


def test_a_lease_that_was_cancelled_but_not_settled_is_no_failure_of_the_task(
    world: FakeDeployment,
) -> None:
    request = world.request()
    old = running(world.dispatcher.begin(request))
    world.providers[old.pool].is_reachable = False
    with pytest.raises(TransientError):
        world.dispatcher.cancel(old.key, detail="a person ended the task")
    world.providers[old.pool].is_reachable = True
    new = running(world.dispatcher.begin(replace(request, owner_try=2)))
    assert world.live == [new.key]


def test_a_job_cancelled_while_it_was_being_submitted_is_released(world: FakeDeployment) -> None:
    request = world.request()

    def cancel_it() -> None:
        world.dispatcher.cancel_task(request.task, detail="a person ended the task")

    world.providers["reserved"].before_submit = cancel_it
    lease = running(world.dispatcher.begin(request))
    assert lease.state is LeaseState.CANCELLED
    assert_nothing_left(world)
    with pytest.raises(TaskFailedError, match="a person ended the task"):
        world.dispatcher.advance(request, lease.key)


def test_nothing_is_cancelled_where_nothing_runs(world: FakeDeployment) -> None:
    assert not world.dispatcher.cancel_task(world.request().task, detail="a person ended the task")


# ---- fresh start ----------------------------------------------------------------------------------------------


def test_a_fresh_start_ignores_checkpoints_until_a_job_has_begun_afresh(
    world: FakeDeployment,
) -> None:
    full_after_all(world, "reserved")
    request = world.request(fresh_start=True)
    first = running(world.dispatcher.begin(request))
    assert first.number == 2, "the pool that refused is attempt 1"
    assert first.submission.fresh_start
    world.providers["spot"].preempt(first.key)
    second = running(world.dispatcher.advance(request, first.key))
    assert second.submission.fresh_start, "the first job was lost before it began"
    claim(open_store(world.store_url), second.submission.prefix, second.token, fresh=True)
    world.providers[second.pool].preempt(second.key)
    third = running(world.dispatcher.advance(request, second.key))
    assert not third.submission.fresh_start, "this would throw away what the second job saved"


def test_a_fresh_start_after_a_clear_ignores_the_life_before(world: FakeDeployment) -> None:
    request = world.request()
    old = running(world.dispatcher.begin(request))
    claim(open_store(world.store_url), old.submission.prefix, old.token)
    cleared = replace(request, owner_try=2, owner_clear=1, fresh_start=True)
    assert running(world.dispatcher.begin(cleared)).submission.fresh_start


# ---- reconciliation -------------------------------------------------------------------------------------------


def wanted(_: Lease) -> bool:
    return True


def unwanted(_: Lease) -> bool:
    return False


def test_a_job_without_a_lease_is_found_and_released(world: FakeDeployment) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    world.ledger.cancel(lease.key, owner_try=None, now=world.clock(), detail="lost")
    world.ledger.end(lease.key, now=world.clock())
    assert reconcile(world.dispatcher, wanted).orphans_released == (lease.key,)
    assert_nothing_left(world)


def test_a_lease_that_nobody_wants_is_cancelled_and_others_are_not(world: FakeDeployment) -> None:
    kept = running(world.dispatcher.begin(world.request("kept")))
    dropped = running(world.dispatcher.begin(world.request("dropped")))
    found = reconcile(world.dispatcher, lambda lease: lease.task == kept.task)
    assert found.leases_cancelled == (dropped.key,)
    assert world.live == [kept.key]


def test_a_lease_that_is_over_but_open_is_settled(world: FakeDeployment) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    world.clock.advance(HOUR)
    world.ledger.record(lease.key, JobEvent.PREEMPTED, now=world.clock())
    assert reconcile(world.dispatcher, wanted).leases_settled == (lease.key,)
    assert_nothing_left(world)
    world.check_books(request.task)


def test_leases_on_a_pool_that_cannot_be_asked_are_left_alone(world: FakeDeployment) -> None:
    silent = running(world.dispatcher.begin(world.request("silent")))
    answers = running(world.dispatcher.begin(world.request("answers")))
    world.providers[silent.pool].is_reachable = False
    found = reconcile(world.dispatcher, unwanted)
    assert set(found.pools_unreachable) == {silent.pool}
    assert found.leases_cancelled == (answers.key,)
    assert [lease.key for lease in world.ledger.open_leases()] == [silent.key]
    assert world.ledger.lease(silent.key).state is LeaseState.STARTING


def test_a_lease_whose_submission_went_unanswered_is_closed_once_its_task_is_over(
    world: FakeDeployment,
) -> None:
    request = world.request()
    provider = world.providers["reserved"]
    provider.before_submit = lambda: setattr(provider, "is_reachable", False)
    with pytest.raises(TransientError):
        world.dispatcher.begin(request)
    (held,) = world.ledger.open_leases()
    assert held.state is LeaseState.GRANTED
    assert reconcile(world.new_process(), unwanted).leases_cancelled == ()
    provider.is_reachable = True
    assert reconcile(world.new_process(), unwanted).leases_cancelled == (held.key,)
    assert_nothing_left(world)
    world.check_books(request.task)


def test_a_pool_that_falls_silent_half_way_keeps_nothing_else_from_being_put_right(
    world: FakeDeployment,
) -> None:
    first = running(world.dispatcher.begin(world.request("first")))
    second = running(world.dispatcher.begin(world.request("second")))

    def is_wanted(lease: Lease) -> bool:
        if lease.key == first.key:
            world.providers[first.pool].is_reachable = False
        return False

    found = reconcile(world.dispatcher, is_wanted)
    assert set(found.pools_unreachable) == {first.pool}
    assert found.leases_cancelled == (second.key,)
    assert world.ledger.lease(first.key).ended_at is None


def test_a_provider_that_cannot_be_asked_says_nothing_of_the_job(world: FakeDeployment) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    world.providers[lease.pool].is_reachable = False
    with pytest.raises(TransientError):
        world.dispatcher.advance(request, lease.key)
    assert world.ledger.lease(lease.key).state is LeaseState.STARTING


def test_a_lease_on_a_pool_that_is_not_configured_any_more_names_the_remedy(
    world: FakeDeployment,
) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    del world.dispatcher.pools["reserved"]
    with pytest.raises(SpecError, match="put it back"):
        world.dispatcher.advance(request, lease.key)


# ---- seeing ---------------------------------------------------------------------------------------------------


def test_the_output_of_a_job_is_read_from_where_one_stopped_reading(world: FakeDeployment) -> None:
    lease = running(world.dispatcher.begin(world.request()))
    world.providers[lease.pool].print(lease.key, "one\n")
    first = world.dispatcher.read_log(lease, 0)
    world.providers[lease.pool].print(lease.key, "two\n")
    assert first.text == "one\n"
    assert world.dispatcher.read_log(lease, first.next_offset).text == "two\n"


def test_a_job_that_has_said_nothing_has_no_heartbeat(world: FakeDeployment) -> None:
    assert world.dispatcher.heartbeat(running(world.dispatcher.begin(world.request()))) is None


def test_a_job_that_was_killed_is_reported_with_what_it_printed_last(world: FakeDeployment) -> None:
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    submission = lease.submission
    store = open_store(submission.store)
    said = Heartbeat(token=lease.token, written_at=world.clock(), log_tail="out of memory")
    write_heartbeat(store, submission.prefix, said)
    world.providers[lease.pool].fail(lease.key, 137)
    with pytest.raises(TaskFailedError, match="printed last:\nout of memory"):
        world.dispatcher.advance(request, lease.key)
    assert list(store.list(".heartbeats")) == []  # only what is at work is there
    assert world.dispatcher.heartbeat(lease) == said
