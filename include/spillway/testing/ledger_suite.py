"""What every database must do to keep the ledger. Subclass `LedgerContract` and give it a fixture `url`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import run_state_machine_as_test

from spillway.errors import LedgerError, PoolFullError, SpecError
from spillway.ledger import Ledger
from spillway.model import (
    JobEvent,
    LeaseState,
    Move,
    PassedOver,
    Placement,
    PricingCategory,
    TaskSpec,
    Unplaced,
)
from spillway.testing import strategies
from spillway.testing.ledger_machine import LeaseLife
from spillway.testing.ledger_race import POOL, SLOTS, outcome, race, racing_processes, together
from spillway.testing.ledger_report_suite import BY_MONTH, HOUR, LedgerReports, grant, run_through
from spillway.testing.ledger_samples import (
    EFFECTIVE,
    LIST,
    MARGINAL,
    NOON,
    price_times_time,
    sample_offer,
    sample_pool,
    sample_request,
    sample_task,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

on_one_ledger = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class LedgerContract(LedgerReports):
    """What the ledger does with leases, and, by inheritance, what it says of them."""

    # ---- granting

    def test_a_granted_lease_is_read_back_as_it_was_granted(self, ledger: Ledger) -> None:
        request = sample_request(owner_try=2, owner_clear=1)
        lease = ledger.grant(request, slots=1, now=NOON)
        assert lease.key == request.task.attempt(1)
        assert (lease.number, lease.state, lease.owner_try, lease.owner_clear) == (
            1,
            LeaseState.GRANTED,
            2,
            1,
        )
        assert lease.granted_at == NOON
        assert lease.marginal_usd_per_hour == MARGINAL
        assert (lease.submission.key, lease.submission.token) == (lease.key, lease.token)
        assert lease.submission.checkpoint_interval == timedelta(minutes=10)
        assert ledger.lease(lease.key) == ledger.open_lease(request.task) == lease
        assert ledger.placement(lease.key) == request.placement

    def test_any_placement_and_submission_is_kept_exactly(self, ledger: Ledger) -> None:
        numbers = count()

        @given(placement=strategies.placements(), spec=strategies.tasks(), now=strategies.instants)
        @on_one_ledger
        def is_kept(placement: Placement, spec: TaskSpec, now: datetime) -> None:
            request = sample_request(sample_task(f"task-{next(numbers)}"))
            request = replace(request, placement=placement, spec=spec)
            lease = ledger.grant(request, slots=10**6, now=now)
            assert ledger.lease(lease.key) == lease
            assert lease.granted_at == now
            assert lease.submission.arguments == spec.arguments
            assert (lease.slots, lease.submission.nodes) == (spec.nodes, spec.nodes)
            assert lease.list_usd_per_hour == placement.offer.list_usd_per_hour * spec.nodes
            assert ledger.placement(lease.key) == placement

        is_kept()

    def test_a_task_holds_at_most_one_open_lease(self, ledger: Ledger) -> None:
        held = grant(ledger)
        with pytest.raises(LedgerError, match=held.key):
            grant(ledger, pool="on_demand")

    def test_a_full_pool_refuses_until_a_lease_ends(self, ledger: Ledger) -> None:
        first = grant(ledger, "one")
        grant(ledger, "two")
        with pytest.raises(PoolFullError, match="2 of 2"):
            grant(ledger, "three")
        assert grant(ledger, "elsewhere", pool="on_demand").pool == "on_demand"
        ledger.record(first.key, JobEvent.PREEMPTED, now=NOON)
        with pytest.raises(PoolFullError):
            grant(ledger, "three")
        ledger.end(first.key, now=NOON)
        assert grant(ledger, "three").number == 1

    def test_a_gang_is_one_lease_of_a_slot_for_each_node(self, ledger: Ledger) -> None:
        gang = ledger.grant(sample_request(nodes=3), slots=4, now=NOON)
        assert (gang.slots, gang.submission.nodes) == (3, 3)
        assert gang.marginal_usd_per_hour == 3 * MARGINAL
        assert gang.submission.preemptions_per_hour == pytest.approx(0.3)
        ended = run_through(ledger, gang, JobEvent.PREEMPTED, ended_at=NOON + 2 * HOUR)
        assert ended.slots == 3
        records = ledger.cost_records(gang.key)
        assert sum(r.list_cost for r in records) == 3 * 2 * LIST
        assert ledger.runs(now=NOON + 9 * HOUR)[0].list_cost == 6 * LIST

    def test_what_waits_is_kept_until_it_is_leased_something(self, ledger: Ledger) -> None:
        @given(unplaced=strategies.unplaced())
        @on_one_ledger
        def is_kept(unplaced: Unplaced) -> None:
            task, until = sample_task("patient"), NOON + HOUR
            ledger.note_waiting(task, unplaced, until=until, now=NOON)
            (kept,) = ledger.waiting(now=NOON)
            assert (kept.task, kept.since, kept.asks_again_at) == (task, NOON, until)
            assert kept.unplaced == unplaced
            told = unplaced.task
            is_in_line = told is not None and told.deadline is not None and not unplaced.planned
            line = ledger.line(now=NOON, overdue=HOUR, most=9)
            assert [(one.key, one.task) for one in line] == ([(task, told)] if is_in_line else [])

        is_kept()
        ledger.note_waiting(sample_task("other"), Unplaced(passed_over=()), until=NOON, now=NOON)
        later = NOON + HOUR
        task = sample_task("patient")
        ledger.note_waiting(task, Unplaced(passed_over=()), until=later, now=later)
        (kept,) = ledger.waiting(now=later)  # the other one has not asked again
        assert (kept.task, kept.since) == (task, NOON)
        assert ledger.waiting(now=later, dag_id="weekly") == []
        grant(ledger, "patient", now=later)
        assert ledger.waiting(now=NOON + HOUR / 60) != []
        assert ledger.waiting(now=later) == []
        ledger.forget_waiting(sample_task("other"))
        assert ledger.waiting(now=NOON) == []

    def test_those_who_waited_longest_are_first_in_the_line(self, ledger: Ledger) -> None:
        spec = replace(sample_request().spec, deadline=NOON + 8 * HOUR)
        for place, name in enumerate("cab"):
            now = NOON + place * HOUR / 60
            unplaced = Unplaced(passed_over=(), task=spec)
            ledger.note_waiting(sample_task(name), unplaced, until=NOON + HOUR, now=now)

        def names(now: datetime, most: int) -> list[str]:
            return [one.key.task_id for one in ledger.line(now=now, overdue=HOUR, most=most)]

        assert names(NOON + HOUR, 9) == ["c", "a", "b"]
        assert names(NOON + HOUR, 2) == ["c", "a"]
        assert names(NOON + 3 * HOUR, 9) == []

    def test_the_newest_belief_is_kept(self, ledger: Ledger) -> None:
        assert ledger.belief("pools") is None
        for seen_at, document in ((1, "old"), (3, "new"), (2, "late")):
            ledger.believe("pools", document, now=NOON + seen_at * HOUR)
        ledger.believe("others", [1.5], now=NOON)
        assert ledger.belief("pools") == "new"
        assert ledger.belief("others") == [1.5]

    @pytest.mark.parametrize("stops", [True, False])
    def test_a_job_asked_to_move_is_promised_its_slots(
        self, ledger: Ledger, *, stops: bool
    ) -> None:
        lease = ledger.grant(sample_request(nodes=2), slots=2, now=NOON)
        ledger.record(lease.key, JobEvent.STARTED, now=NOON)

        def promised() -> dict[str, int]:
            pools = [sample_pool("spot"), sample_pool("on_demand")]
            used = ledger.usage(pools, now=NOON, cool_down=HOUR)
            return {name: one.promised_slots for name, one in used.items()}

        assert promised() == {"spot": 0, "on_demand": 0}
        assert ledger.move(lease.key) is None
        move = Move(
            held="spot",
            to="on_demand",
            reason="it is time",
            passed_over=(PassedOver(offer=sample_offer("on_demand"), reason="is steady"),),
            task=sample_request().spec,
            decided_at=NOON,
            weighed={"some": [1.5]},
        )
        for _ in range(2):  # asked again, it is the first decision that counts
            ledger.record(lease.key, JobEvent.ASKED_TO_MOVE, now=NOON, move=move)
        assert ledger.move(lease.key) == move
        assert promised() == {"spot": 0, "on_demand": 2}
        ended = JobEvent.PREEMPTED if stops else JobEvent.SUCCEEDED
        ledger.record(lease.key, ended, now=NOON)
        assert promised() == {"spot": 0, "on_demand": 2 if stops else 0}  # until it can begin there
        ledger.end(lease.key, now=NOON)
        assert promised() == {"spot": 0, "on_demand": 0}

    def test_a_gang_gets_all_its_slots_or_none(self, ledger: Ledger) -> None:
        held = grant(ledger, "one")
        gang = sample_request(sample_task("gang"), nodes=2)
        with pytest.raises(PoolFullError, match=r"1 of 2 .* 2 are needed at once"):
            ledger.grant(gang, slots=2, now=NOON)
        assert ledger.open_leases() == [held]
        ledger.grant(gang, slots=3, now=NOON)
        with pytest.raises(PoolFullError, match="3 of 3"):
            ledger.grant(sample_request(sample_task("two")), slots=3, now=NOON)

    def test_the_slots_of_a_gang_are_in_use_and_history(self, ledger: Ledger) -> None:
        gang = ledger.grant(sample_request(nodes=3), slots=4, now=NOON)
        pools = [replace(sample_pool("spot"), commitment=BY_MONTH)]
        used = ledger.usage(pools, now=NOON + 2 * HOUR, cool_down=HOUR)["spot"]
        assert (used.leased_slots, used.month_slot_hours) == (3, Decimal(6))
        run_through(ledger, gang, JobEvent.PREEMPTED, ended_at=NOON + 2 * HOUR)
        used = ledger.usage(pools, now=NOON + 4 * HOUR, cool_down=HOUR)["spot"]
        assert (used.leased_slots, used.month_slot_hours) == (0, Decimal(6))
        (day,) = ledger.pool_days(pools, since=NOON - HOUR, now=NOON + 4 * HOUR)["spot"]
        assert (round(day.slot_hours, 5), day.losses) == (6.0, 1)

    def test_attempts_count_up_and_tokens_only_grow(self, ledger: Ledger) -> None:
        first = run_through(ledger, grant(ledger), JobEvent.PREEMPTED, ended_at=NOON)
        with pytest.raises(PoolFullError):
            ledger.grant(sample_request(), slots=0, now=NOON)
        second = grant(ledger, pool="on_demand")
        assert (first.number, second.number) == (1, 2)
        assert second.token > first.token
        assert [lease.key for lease in ledger.attempts(sample_task())] == [first.key, second.key]

    def test_an_unknown_lease_is_an_error_that_names_it(self, ledger: Ledger) -> None:
        for ask in (
            lambda: ledger.lease("a/b/c/-1/1"),
            lambda: ledger.placement("a/b/c/-1/1"),
            lambda: ledger.end("a/b/c/-1/1", now=NOON),
            lambda: ledger.record("a/b/c/-1/1", JobEvent.STARTED, now=NOON),
        ):
            with pytest.raises(LedgerError, match="a/b/c/-1/1"):
                ask()
        assert ledger.open_lease(sample_task()) is None
        assert ledger.attempts(sample_task()) == []
        assert ledger.cost_records("a/b/c/-1/1") == []

    # ---- a lease's life

    def test_events_move_the_lease_and_leave_their_facts(self, ledger: Ledger) -> None:
        key = grant(ledger).key
        ledger.record(key, JobEvent.SUBMITTED, now=NOON, provider_id="job-7")
        ledger.record(key, JobEvent.STARTED, now=NOON + HOUR)
        ledger.record(key, JobEvent.STARTED, now=NOON + 2 * HOUR)
        lease = ledger.record(
            key, JobEvent.FAILED, now=NOON + 3 * HOUR, exit_code=3, detail="out of \0 memory \ud800"
        )
        assert lease == ledger.lease(key)
        assert (lease.state, lease.exit_code, lease.provider_id) == (LeaseState.FAILED, 3, "job-7")
        assert lease.started_at == NOON + HOUR
        assert lease.detail == "out of \N{REPLACEMENT CHARACTER} memory ?"
        assert lease.ended_at is None

    def test_a_final_state_stays_but_its_job_can_still_be_named(self, ledger: Ledger) -> None:
        key = grant(ledger).key
        assert ledger.cancel(key, owner_try=1, now=NOON, detail="marked failed")
        lease = ledger.record(
            key, JobEvent.SUBMITTED, now=NOON, exit_code=0, detail="late", provider_id="job-7"
        )
        assert (lease.state, lease.exit_code) == (LeaseState.CANCELLED, None)
        assert (lease.detail, lease.provider_id) == ("marked failed", "job-7")

    def test_only_the_owner_or_nobody_in_particular_cancels(self, ledger: Ledger) -> None:
        key = grant(ledger).key
        adopted = ledger.adopt(key, owner_try=2, owner_clear=0)
        assert adopted is not None
        assert adopted.owner_try == 2
        assert not ledger.cancel(key, owner_try=1, now=NOON, detail="the last try was killed")
        assert ledger.lease(key).state is LeaseState.GRANTED
        assert ledger.cancel(key, owner_try=None, now=NOON, detail="nobody waits for it")
        assert not ledger.cancel(key, owner_try=None, now=NOON, detail="again")
        assert ledger.lease(key).detail == "nobody waits for it"

    def test_a_newer_owner_keeps_the_lease(self, ledger: Ledger) -> None:
        key = grant(ledger).key
        assert ledger.adopt(key, owner_try=2, owner_clear=1) is not None
        assert ledger.adopt(key, owner_try=1, owner_clear=1) is None
        assert ledger.adopt(key, owner_try=3, owner_clear=0) is None
        assert ledger.lease(key).owner_try == 2
        ledger.cancel(key, owner_try=None, now=NOON, detail="")
        ledger.end(key, now=NOON)
        assert ledger.adopt(key, owner_try=9, owner_clear=9) is None

    def test_a_running_lease_cannot_end(self, ledger: Ledger) -> None:
        key = grant(ledger).key
        with pytest.raises(LedgerError, match="cancel it"):
            ledger.end(key, now=NOON)

    def test_ending_charges_exactly_the_time_held_and_only_once(self, ledger: Ledger) -> None:
        start = NOON + timedelta(minutes=59, microseconds=1)
        end = NOON + timedelta(hours=3, seconds=1, microseconds=7)
        lease = grant(ledger, now=start)
        ended = run_through(ledger, lease, JobEvent.SUCCEEDED, ended_at=end)
        assert ledger.end(lease.key, now=end + HOUR) == ended
        records = ledger.cost_records(lease.key)
        hours = [NOON + n * HOUR for n in (1, 2, 3)]
        assert [r.charge_period_start for r in records] == [start, *hours]
        assert [r.charge_period_end for r in records] == [*hours, end]
        assert {r.pricing_category for r in records} == {PricingCategory.DYNAMIC}
        assert {(r.lease_key, r.pool) for r in records} == {(lease.key, "spot")}
        for price, total in (
            (MARGINAL, sum(r.marginal_cost for r in records)),
            (EFFECTIVE, sum(r.effective_cost for r in records)),
            (LIST, sum(r.list_cost for r in records)),
        ):
            assert total == price_times_time(price, end - start)

    def test_a_clock_that_runs_behind_ends_no_lease_before_it_began(self, ledger: Ledger) -> None:
        lease = grant(ledger)
        ended = run_through(ledger, lease, JobEvent.FAILED, ended_at=NOON - HOUR)
        assert ended.ended_at == NOON
        assert ledger.cost_records(lease.key) == []

    def test_instants_of_any_time_zone_come_back_as_utc(self, ledger: Ledger) -> None:
        elsewhere = timezone(timedelta(hours=5, minutes=45))
        lease = grant(ledger, now=NOON.astimezone(elsewhere))
        assert ledger.lease(lease.key).granted_at == NOON
        assert ledger.lease(lease.key).granted_at.tzinfo is UTC

    def test_an_instant_without_a_time_zone_is_refused(self, ledger: Ledger) -> None:
        with pytest.raises(LedgerError, match="time zone"):
            grant(ledger, now=NOON.replace(tzinfo=None))
        assert ledger.open_leases() == []

    @pytest.mark.parametrize("rate", [float("nan"), float("inf"), NOON, {1, 2}])
    def test_arguments_that_are_not_json_are_refused(self, ledger: Ledger, rate: object) -> None:
        request = sample_request()
        arguments = cast("dict[str, JsonValue]", {"rate": rate})
        broken = replace(request, spec=replace(request.spec, arguments=arguments))
        with pytest.raises(SpecError, match="JSON"):
            ledger.grant(broken, slots=1, now=NOON)
        assert ledger.attempts(request.task) == []

    # ---- at the same time

    def test_no_slot_is_leased_twice_however_many_ask_at_once(self, url: str) -> None:
        """Also the race to make the database: nobody has opened it before."""
        with racing_processes(url, processes=8, threads=4) as results:
            outcomes = race(url, name="thread", threads=64) + results()
        ledger = Ledger.open(url)
        held = ledger.open_leases(POOL)
        assert outcomes == {"granted": len(held), "full": 64 + 8 * 4 - len(held)}
        # Tasks of one node fill whatever gangs leave, and many of them asked.
        assert sum(lease.slots for lease in held) == SLOTS
        ledger.close()

    def test_one_task_is_leased_once_however_many_pools_it_asks(self, ledger: Ledger) -> None:
        tasks = [sample_task(f"task-{number}") for number in range(4)]

        def ask(number: int) -> str:
            request = sample_request(tasks[number % 4], pool="ab"[number // 4 % 2])
            return outcome(lambda: ledger.grant(request, slots=99, now=NOON))

        assert together(64, ask) == Counter(granted=4, held=60)
        assert Counter(lease.task for lease in ledger.open_leases()) == Counter(tasks)

    def test_one_of_many_cancels_and_one_end_is_charged(self, ledger: Ledger) -> None:
        key = grant(ledger).key

        def stop(number: int) -> str:
            answer = ledger.cancel(key, owner_try=None, now=NOON, detail=str(number))
            return json.dumps([answer, str(ledger.end(key, now=NOON + number * HOUR).ended_at)])

        outcomes = together(16, stop)
        ended_at = str(ledger.lease(key).ended_at)
        assert outcomes == {json.dumps([True, ended_at]): 1, json.dumps([False, ended_at]): 15}

    def test_any_life_of_leases_keeps_the_books_in_order(self, ledger: Ledger) -> None:
        class OnThisLedger(LeaseLife):
            pass

        OnThisLedger.ledger = ledger
        run_state_machine_as_test(
            OnThisLedger,
            settings=settings(on_one_ledger, max_examples=15, stateful_step_count=30),
        )
