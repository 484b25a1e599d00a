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
    Lease,
    LeaseState,
    MonthlyMinimum,
    Move,
    PassedOver,
    Placement,
    PoolUsage,
    PrepaidHours,
    PricingCategory,
    SpeedSample,
    TaskSpec,
    Unplaced,
)
from spillway.testing import strategies
from spillway.testing.ledger_machine import LeaseLife
from spillway.testing.ledger_race import POOL, SLOTS, outcome, race, racing_processes, together
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
    from collections.abc import Iterator

    from pydantic import JsonValue

HOUR = timedelta(hours=1)
BY_MONTH = MonthlyMinimum(
    slot_hours=Decimal(100), usd_per_slot_hour=EFFECTIVE, overage_usd_per_slot_hour=LIST
)
on_one_ledger = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def grant(
    ledger: Ledger, name: str = "train", *, pool: str = "spot", now: datetime = NOON
) -> Lease:
    """Grant a lease of one of two slots."""
    return ledger.grant(sample_request(sample_task(name), pool=pool), slots=2, now=now)


def run_through(ledger: Ledger, lease: Lease, event: JobEvent, *, ended_at: datetime) -> Lease:
    """Start the lease's job, let `event` be its end, and settle it."""
    ledger.record(lease.key, JobEvent.STARTED, now=lease.granted_at)
    ledger.record(lease.key, event, now=ended_at)
    return ledger.end(lease.key, now=ended_at)


def _a_speed(*, speed: float, at: datetime) -> SpeedSample:
    return SpeedSample(
        workload="gpt",
        accelerator="H100",
        accelerator_count=8,
        speed=speed,
        hours=0.5,
        measured_at=at,
    )


class LedgerContract:
    """The contract. Each test gets an empty database."""

    @pytest.fixture
    def url(self) -> str:
        """URL of a database without a ledger."""
        pytest.fail("the contract's subclass has to give a fixture `url`")

    @pytest.fixture
    def ledger(self, url: str) -> Iterator[Ledger]:
        """An empty ledger."""
        ledger = Ledger.open(url)
        yield ledger
        ledger.close()

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

    def test_a_job_asked_to_move_is_promised_its_slots(self, ledger: Ledger) -> None:
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
        ledger.record(lease.key, JobEvent.PREEMPTED, now=NOON)
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

    # ---- reports

    def test_usage_counts_open_slots_and_this_months_hours(self, ledger: Ledger) -> None:
        month = datetime(2026, 3, 1, tzinfo=UTC)
        before = grant(ledger, "before", now=month - 10 * HOUR)
        run_through(ledger, before, JobEvent.SUCCEEDED, ended_at=month - HOUR)
        across = grant(ledger, "across", now=month - 2 * HOUR)
        run_through(ledger, across, JobEvent.SUCCEEDED, ended_at=month + HOUR / 2)
        grant(ledger, "open", now=month + HOUR)
        pools = [replace(sample_pool(name), commitment=BY_MONTH) for name in ("spot", "idle")]
        usage = ledger.usage(pools, now=month + 3 * HOUR, cool_down=HOUR)
        assert usage == {
            "spot": PoolUsage(leased_slots=1, month_slot_hours=Decimal("2.5")),
            "idle": PoolUsage(),
        }

    def test_usage_counts_the_hours_since_a_prepaid_period_began(self, ledger: Ledger) -> None:
        bought = PrepaidHours(
            slot_hours=Decimal(100),
            usd_per_slot_hour=EFFECTIVE,
            overage_usd_per_slot_hour=LIST,
            starts_at=NOON - HOUR,
            ends_at=NOON + 100 * HOUR,
        )
        pool = replace(sample_pool("spot"), commitment=bought)
        across = grant(ledger, "across", now=NOON - 3 * HOUR)
        run_through(ledger, across, JobEvent.SUCCEEDED, ended_at=NOON + HOUR / 2)
        grant(ledger, "open", now=NOON)
        usage = ledger.usage([pool], now=NOON + HOUR, cool_down=HOUR)
        assert usage["spot"].period_slot_hours == Decimal("2.5")
        still_to_begin = replace(bought, starts_at=NOON + 50 * HOUR)
        later = [replace(pool, commitment=still_to_begin)]
        usage = ledger.usage(later, now=NOON + HOUR, cool_down=HOUR)
        assert usage["spot"].period_slot_hours == 0

    def test_what_leases_added_to_the_bill_is_summed_up(self, ledger: Ledger) -> None:
        first, second = grant(ledger, "first", now=NOON), grant(ledger, "second", now=NOON)
        run_through(ledger, first, JobEvent.PREEMPTED, ended_at=NOON + HOUR / 3)
        run_through(ledger, second, JobEvent.FAILED, ended_at=NOON + 2 * HOUR)
        still_open = grant(ledger, "open", now=NOON)
        one, two = (price_times_time(MARGINAL, held) for held in (HOUR / 3, 2 * HOUR))
        assert ledger.added_to_bill([first.key]) == one
        assert ledger.added_to_bill([first.key, second.key, still_open.key]) == one + two
        assert ledger.added_to_bill([still_open.key]) == ledger.added_to_bill([]) == 0

    # ---- history

    def test_a_pool_s_days_have_its_hours_and_losses(self, ledger: Ledger) -> None:
        taken_back = grant(ledger, "taken", now=NOON)
        run_through(ledger, taken_back, JobEvent.PREEMPTED, ended_at=NOON + 2 * HOUR)
        forgotten = grant(ledger, "forgotten", now=NOON + 9 * HOUR)
        run_through(ledger, forgotten, JobEvent.VANISHED, ended_at=NOON + 11 * HOUR)
        overnight = grant(ledger, "overnight", now=NOON + 10 * HOUR)
        run_through(ledger, overnight, JobEvent.FAILED, ended_at=NOON + 13 * HOUR)
        grant(ledger, "open", now=NOON + 30 * HOUR)
        days = ledger.pool_days(
            [sample_pool("spot"), sample_pool("idle")],
            since=NOON + HOUR,
            now=NOON + 36 * HOUR,
        )
        first = NOON.date()
        assert days["idle"] == ()
        seen = {(d.day - first).days: (d.losses, round(d.slot_hours, 5)) for d in days["spot"]}
        assert seen == {0: (2, 3.0), 1: (0, 3.0), 2: (0, 6.0)}

    def test_what_ended_before_is_not_in_a_pool_s_days(self, ledger: Ledger) -> None:
        run_through(ledger, grant(ledger), JobEvent.PREEMPTED, ended_at=NOON + HOUR)
        days = ledger.pool_days([sample_pool("spot")], since=NOON + HOUR, now=NOON + 2 * HOUR)
        assert days == {"spot": ()}

    def test_speeds_are_kept_one_a_lease_and_found_by_workload(self, ledger: Ledger) -> None:
        first, second = grant(ledger, "first"), grant(ledger, "second")
        ledger.note_speed(first.key, _a_speed(speed=1.0, at=NOON))
        ledger.note_speed(second.key, _a_speed(speed=2.0, at=NOON + HOUR))
        ledger.note_speed(first.key, _a_speed(speed=3.0, at=NOON + 2 * HOUR))
        since = NOON - HOUR
        assert [s.speed for s in ledger.speeds("gpt", since=since)] == [2.0, 3.0]
        assert ledger.speeds("gpt", since=since, limit=1) == [
            _a_speed(speed=3.0, at=NOON + 2 * HOUR)
        ]
        part = replace(_a_speed(speed=0.4, at=NOON + 3 * HOUR), accelerator_fraction=1 / 7)
        ledger.note_speed(second.key, part)
        assert ledger.speeds("gpt", since=NOON + 2 * HOUR) == [part]
        assert ledger.speeds("gpt", since=NOON + 3 * HOUR) == []
        assert ledger.speeds("other", since=since) == []

    def test_a_speed_of_no_lease_is_refused(self, ledger: Ledger) -> None:
        with pytest.raises(LedgerError, match="no lease nobody"):
            ledger.note_speed("nobody", _a_speed(speed=1.0, at=NOON))

    def test_a_pool_cools_down_after_a_preemption_or_a_refusal(self, ledger: Ledger) -> None:
        pools = [sample_pool(name) for name in ("spot", "on_demand", "partner")]
        run_through(ledger, grant(ledger), JobEvent.PREEMPTED, ended_at=NOON)
        run_through(ledger, grant(ledger, pool="partner"), JobEvent.FAILED, ended_at=NOON)
        ledger.note_refusal("on_demand", now=NOON + HOUR)

        def cooling(now: datetime) -> set[str]:
            usage = ledger.usage(pools, now=now, cool_down=2 * HOUR)
            return {name for name, pool in usage.items() if pool.cooling_down}

        assert cooling(NOON + HOUR) == {"spot", "on_demand"}
        assert cooling(NOON + 2 * HOUR) == {"on_demand"}
        assert cooling(NOON + 3 * HOUR) == set()

    def test_what_pools_answered_is_told_in_time(self, ledger: Ledger) -> None:
        run_through(ledger, grant(ledger), JobEvent.PREEMPTED, ended_at=NOON + HOUR)
        ledger.note_refusal("spot", now=NOON + 2 * HOUR)
        ledger.note_refusal("partner", now=NOON + 2 * HOUR)
        grant(ledger, "never seen to run", now=NOON + 3 * HOUR)
        waited = grant(ledger, "let wait for too long", pool="on_demand", now=NOON + HOUR)
        ledger.record(waited.key, JobEvent.PREEMPTED, now=NOON + 2 * HOUR)
        since = NOON - HOUR
        told = ledger.room_answers(["spot", "on_demand", "idle"], since=since)
        assert {
            pool: [(answer.at - NOON, answer.had_room) for answer in answers]
            for pool, answers in told.items()
        } == {
            "spot": [(0 * HOUR, True), (HOUR, False), (2 * HOUR, False)],
            "on_demand": [(2 * HOUR, False)],
            "idle": [],
        }
        later = ledger.room_answers(["spot"], since=NOON + HOUR)["spot"]
        assert [answer.at for answer in later] == [NOON + 2 * HOUR]

    def test_open_leases_are_listed_by_pool(self, ledger: Ledger) -> None:
        spot, dear = grant(ledger, "one"), grant(ledger, "two", pool="on_demand")
        run_through(ledger, grant(ledger, "over"), JobEvent.SUCCEEDED, ended_at=NOON)
        assert ledger.open_leases() == [spot, dear]
        assert ledger.open_leases("on_demand") == [dear]

    def test_many_leases_are_read_at_once(self, ledger: Ledger) -> None:
        one, two = grant(ledger, "one"), grant(ledger, "two")
        grant(ledger, "not asked for", pool="on_demand")
        found = ledger.leases({one.key, two.key, "nightly/run/none/-1/1"})
        assert found == {one.key: one, two.key: two}
        assert ledger.leases([]) == {}

    def test_leases_whose_task_has_a_deadline_are_told_from_others(self, ledger: Ledger) -> None:
        def lease(name: str, task: TaskSpec | None) -> str:
            request = sample_request(sample_task(name))
            request = replace(request, placement=replace(request.placement, task=task))
            return ledger.grant(request, slots=9, now=NOON).key

        spec = sample_request().spec
        task = replace(spec, deadline=NOON + 8 * HOUR, work=2 * HOUR)
        timed = lease("timed", task)
        keys = [timed, lease("untimed", spec), lease("of an old version", None)]
        assert ledger.tasks_with_deadline(keys) == {timed: task}
        assert ledger.tasks_with_deadline(keys[1:]) == {}

    def test_runs_are_reported_newest_first_with_their_costs_so_far(self, ledger: Ledger) -> None:
        ended = run_through(ledger, grant(ledger), JobEvent.PREEMPTED, ended_at=NOON + 2 * HOUR)
        held = grant(ledger, now=NOON + 2 * HOUR)
        other = ledger.grant(sample_request(sample_task(run_id="other")), slots=9, now=NOON)
        reports = ledger.runs(dag_id="nightly", run_id="manual__2026", now=NOON + 5 * HOUR)
        assert [report.lease for report in reports] == [held, ended]
        assert [report.list_cost for report in reports] == [3 * LIST, 2 * LIST]
        assert reports[1].marginal_cost == price_times_time(MARGINAL, 2 * HOUR)
        assert reports[0].placement_reason == "cheapest to complete"
        assert [report.lease for report in ledger.runs(now=NOON, limit=1)] == [other]

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
