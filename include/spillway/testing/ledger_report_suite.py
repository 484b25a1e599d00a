"""What every database must tell of the leases in a ledger: use, bills, history, lists. Part of `ledger_suite.LedgerContract`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from spillway.errors import LedgerError
from spillway.ledger import Ledger
from spillway.model import (
    JobEvent,
    Lease,
    MonthlyMinimum,
    PoolUsage,
    PrepaidHours,
    SpeedSample,
    TaskSpec,
)
from spillway.testing.ledger_samples import (
    EFFECTIVE,
    LIST,
    MARGINAL,
    NOON,
    price_times_time,
    sample_pool,
    sample_request,
    sample_task,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


HOUR = timedelta(hours=1)
BY_MONTH = MonthlyMinimum(
    slot_hours=Decimal(100), usd_per_slot_hour=EFFECTIVE, overage_usd_per_slot_hour=LIST
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


class LedgerReports:
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
