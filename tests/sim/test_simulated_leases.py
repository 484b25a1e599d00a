"""What the simulation does to leases, against what can be worked out by hand, and what always holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.sim_worlds import HOUR, MINUTE, START, gone, job, pool, scenario
from spillway.catalog.value_tables import ValueTables
from spillway.model import (
    CapacityBlock,
    HourlyCommitment,
    Market,
    MonthlyMinimum,
    PrepaidHours,
)
from spillway.sim.bill import bills
from spillway.sim.command import POLICIES
from spillway.sim.engine import simulate
from spillway.sim.outages import all_outages
from spillway.sim.outcome import End, Outcome
from spillway.sim.production import Spillway
from spillway.sim.scenario import PriceChange, Scenario
from spillway.sim.strategies import (
    CheapestPerHour,
    GreedySpot,
    OnDemandOnly,
    Strategy,
    UniformProgress,
)
from spillway.sim.summary import as_json, summarise, table
from spillway.sim.synthetic import synthetic_jobs

TABLES = ValueTables()
STRATEGIES = {
    "on_demand": OnDemandOnly,
    "cheapest_per_hour": CheapestPerHour,
    "greedy_spot": GreedySpot,
    "uniform_progress": UniformProgress,
    "spillway": lambda: Spillway(TABLES),
}


def team(count: int, seed: int) -> Scenario:
    pools = (
        pool("kept", Market.RESERVED, "2", slots=2, commitment=HourlyCommitment(usd_per_slot_hour=Decimal(1))),
        pool("spot", Market.SPOT, "0.5", slots=3, preemptions_per_hour=0.4, restart_overhead=2 * MINUTE),
        pool("always", Market.ON_DEMAND, "2", slots=6),
    )  # fmt: skip
    end = START + timedelta(days=5)
    return Scenario(
        pools=pools,
        jobs=synthetic_jobs(count, pools, seed=seed, start=START, end=end),
        start=START,
        end=end,
        outages=all_outages(
            pools, [], seed=seed, start=START, end=end, until=end + timedelta(days=31)
        ),
    )


def usd(outcome: Outcome, name: str) -> tuple[Decimal, Decimal, Decimal]:
    bill = next(one for one in bills(outcome) if one.pool == name)
    return bill.added_usd, bill.owed_usd, bill.unused_usd


# ---- by hand --------------------------------------------------------------------------------------------------


def test_an_undisturbed_job_costs_its_start_its_work_and_its_checkpoints() -> None:
    # 10 min to boot, 5 to start, 3 h of work, and a checkpoint of 6 min after the first and the second hour.
    one = job(
        "a",
        3,
        checkpoints=True,
        checkpoint_write=6 * MINUTE,
        restart_overhead=5 * MINUTE,
    )
    world = scenario(
        pool("always", Market.ON_DEMAND, "2.40", preemptions_per_hour=0.0, restart_overhead=10 * MINUTE),
        jobs=[one],
    )  # fmt: skip
    outcome = simulate(world, OnDemandOnly())
    (attempt,) = outcome.attempts
    assert attempt.leased == 3 * HOUR + 27 * MINUTE
    assert (attempt.restart, attempt.writing, attempt.lost) == (
        15 * MINUTE,
        12 * MINUTE,
        timedelta(0),
    )
    assert usd(outcome, "always")[0] == Decimal("2.40") * Decimal("3.45")


def test_a_preemption_loses_what_was_not_saved_and_costs_a_restart() -> None:
    # No warning. 2.5 h into the lease, half an hour of it restart: two hours done, one saved, one lost with no write.
    spot = pool("spot", Market.SPOT, "1", grace_period=timedelta(0), preemptions_per_hour=0.01)
    one = job("a", 5, checkpoints=True, checkpoint_write=MINUTE, restart_overhead=30 * MINUTE)
    outcome = simulate(
        scenario(spot, jobs=[one], outages=tuple(gone("spot", 2.25, 4))), CheapestPerHour()
    )
    first, second = outcome.attempts
    assert first.end is End.PREEMPTED
    assert (first.useful, first.writing, first.lost) == (HOUR, MINUTE, 44 * MINUTE)
    # From 04:00: half an hour to restart, four hours of work, three checkpoints.
    assert second.granted_at == START + 4 * HOUR
    assert second.leased == 30 * MINUTE + 4 * HOUR + 3 * MINUTE
    assert outcome.jobs[0].waiting == 105 * MINUTE


def test_a_warning_long_enough_for_a_checkpoint_saves_everything() -> None:
    spot = pool("spot", Market.SPOT, "1", grace_period=2 * MINUTE, preemptions_per_hour=0.01)
    one = job("a", 5, checkpoints=True, checkpoint_write=MINUTE)
    outcome = simulate(
        scenario(spot, jobs=[one], outages=tuple(gone("spot", 2.5, 3))), CheapestPerHour()
    )
    assert outcome.attempts[0].lost == timedelta(0)
    assert sum((a.useful for a in outcome.attempts), timedelta(0)) == 5 * HOUR


def test_a_job_that_saves_nothing_starts_over() -> None:
    spot = pool("spot", Market.SPOT, "1", preemptions_per_hour=0.01)
    outcome = simulate(
        scenario(spot, jobs=[job("a", 5)], outages=tuple(gone("spot", 4, 6))), CheapestPerHour()
    )
    assert [attempt.lost for attempt in outcome.attempts] == [4 * HOUR, timedelta(0)]
    assert outcome.jobs[0].finished_at == START + 11 * HOUR


def test_a_faster_pool_is_done_sooner() -> None:
    outcome = simulate(
        scenario(pool("fast", Market.ON_DEMAND, "1", speed=4.0), jobs=[job("a", 6)]), OnDemandOnly()
    )
    assert outcome.jobs[0].finished_at == START + 1.5 * HOUR


def test_a_second_job_waits_for_the_only_slot() -> None:
    jobs = [job("a", 2), job("b", 1, at=30 * MINUTE)]
    outcome = simulate(scenario(pool("always", Market.ON_DEMAND, "1"), jobs=jobs), OnDemandOnly())
    assert outcome.jobs[1].finished_at == START + 3 * HOUR
    assert outcome.jobs[1].waiting == 90 * MINUTE


def test_a_job_with_time_waits_for_committed_hours_that_will_be_free() -> None:
    kept = pool(
        "kept", Market.RESERVED, "2", commitment=HourlyCommitment(usd_per_slot_hour=Decimal(1))
    )
    always = pool("always", Market.ON_DEMAND, "2", slots=2)
    jobs = [
        job("holds", 3),
        job("patient", 2, at=HOUR, due=12),
        job("hurried", 2, at=HOUR, due=3),
    ]  # fmt: skip
    outcome = simulate(scenario(kept, always, jobs=jobs, days=2), Spillway(TABLES))
    ran = {a.job: (a.pool, (a.granted_at - START) / HOUR) for a in outcome.attempts}
    assert ran == {"holds": ("kept", 0), "patient": ("kept", 3), "hurried": ("always", 1)}
    assert summarise(outcome).added_usd == 4


def test_one_slot_that_comes_free_calls_one_job() -> None:
    spot = pool("spot", Market.SPOT, "0.5", preemptions_per_hour=0.1)
    always = pool("always", Market.ON_DEMAND, "2", slots=3)
    jobs = [
        job(name, 6, due=40, checkpoints=True, checkpoint_write=2 * MINUTE, restart_overhead=MINUTE)
        for name in "abc"
    ]
    away = tuple(gone("spot", 0, 3.1))
    outcome = simulate(scenario(spot, always, jobs=jobs, outages=away), _OnTheSpot())
    left = [a.job for a in outcome.attempts if a.end is End.LEFT and a.pool == "always"]
    assert left[0] == "a"
    assert all(
        any(b.job == a.job and b.pool == "spot" and b.granted_at >= a.ended_at for b in outcome.attempts)
        for a in outcome.attempts
        if a.end is End.LEFT
    )  # fmt: skip
    assert len(left) == len({a.job for a in outcome.attempts if a.pool == "spot"})


class _OnTheSpot(CheapestPerHour):
    """The cheapest pool by the hour, at every look."""

    name = "on_the_spot"
    reconsiders = True


# ---- the bill -------------------------------------------------------------------------------------------------


def test_hours_committed_by_the_hour_are_owed_whether_used_or_not() -> None:
    kept = pool(
        "kept",
        Market.RESERVED,
        "2",
        slots=2,
        commitment=HourlyCommitment(usd_per_slot_hour=Decimal("1.5")),
    )
    outcome = simulate(scenario(kept, jobs=[job("a", 12)], days=2), CheapestPerHour())
    assert usd(outcome, "kept") == (Decimal(0), Decimal(2 * 48 * 1.5), Decimal((96 - 12) * 1.5))
    assert summarise(outcome).utilisation == pytest.approx(12 / 96)


def test_hours_past_a_monthly_minimum_cost_the_overage_and_the_next_month_counts_afresh() -> None:
    terms = MonthlyMinimum(
        slot_hours=Decimal(10),
        usd_per_slot_hour=Decimal(3),
        overage_usd_per_slot_hour=Decimal(4),
        variable_usd_per_slot_hour=Decimal("0.25"),
    )
    partner = pool("partner", Market.PARTNER, "5", slots=2, commitment=terms)
    # 12 h early in the month; 16 h from eight hours before its end: 8 h in October and 8 in November.
    jobs = [job("a", 12), job("b", 16, at=timedelta(days=31) - 8 * HOUR)]
    outcome = simulate(scenario(partner, jobs=jobs), CheapestPerHour())
    added, owed, unused = usd(outcome, "partner")
    assert added == Decimal("0.25") * 28 + 4 * (12 + 8 - 10)
    assert (owed, unused) == (30, 0)


def test_no_month_is_owed_that_begins_after_the_contract_s_term() -> None:
    terms = MonthlyMinimum(
        slot_hours=Decimal(10),
        usd_per_slot_hour=Decimal(3),
        overage_usd_per_slot_hour=Decimal(4),
        ends_at=START + timedelta(days=31) - 4 * HOUR,
    )
    partner = pool("partner", Market.PARTNER, "5", slots=2, commitment=terms)
    jobs = [job("a", 16, at=timedelta(days=31) - 8 * HOUR)]  # 4 h in the term, 12 h after it
    outcome = simulate(scenario(partner, jobs=jobs, days=40), CheapestPerHour())
    assert usd(outcome, "partner") == (4 * 12, 30, 3 * 6)


def test_prepaid_hours_cost_nothing_until_they_are_used_up() -> None:
    terms = PrepaidHours(
        slot_hours=Decimal(20),
        usd_per_slot_hour=Decimal(1),
        overage_usd_per_slot_hour=Decimal(2),
        starts_at=START,
        ends_at=START + timedelta(days=31),
    )
    prepaid = pool("prepaid", Market.RESERVED, "5", commitment=terms)
    outcome = simulate(scenario(prepaid, jobs=[job("a", 26)]), CheapestPerHour())
    assert usd(outcome, "prepaid") == (2 * 6, 20, 0)


def test_a_capacity_block_ends_whoever_is_on_it() -> None:
    terms = CapacityBlock(usd_per_slot_hour=Decimal(1), starts_at=START, ends_at=START + 6 * HOUR)
    block = pool("block", Market.RESERVED, "5", slots=2, commitment=terms)
    always = pool("on", Market.ON_DEMAND, "6")
    one = job("a", 8, checkpoints=True)
    outcome = simulate(scenario(block, always, jobs=[one]), CheapestPerHour())
    assert [(a.pool, a.leased) for a in outcome.attempts] == [("block", 6 * HOUR), ("on", 2 * HOUR)]
    assert usd(outcome, "block") == (0, 12, 6)


def test_spot_is_billed_at_the_price_of_each_hour_and_recorded_at_that_of_the_launch() -> None:
    spot = pool("spot", Market.SPOT, "1", preemptions_per_hour=0.0)
    changes = (PriceChange(at=START + 90 * MINUTE, pool="spot", usd_per_hour=Decimal(3)),)
    outcome = simulate(scenario(spot, jobs=[job("a", 4)], prices=changes), CheapestPerHour())
    assert usd(outcome, "spot")[0] == Decimal("1.5") + Decimal("2.5") * 3
    assert summarise(outcome).recorded_usd == 4


# ---- the table ------------------------------------------------------------------------------------------------


def four_jobs() -> Scenario:
    """Four jobs of one day, each of which asks something else of a policy.

    All restart for half an hour. `a` may go anywhere, and does where an hour costs nothing. `b` finds those hours taken
    until half past six, and may buy others. `c` loses its spot slot at 11:45 until 14:00, which costs it the quarter of an
    hour after its only checkpoint, less the minute in which that was written. `d` comes when spot is away for good, and the partner is all it may have beside.
    """
    month = timedelta(days=31)
    minimum = MonthlyMinimum(
        slot_hours=Decimal(10),
        usd_per_slot_hour=Decimal(3),
        overage_usd_per_slot_hour=Decimal(4),
        variable_usd_per_slot_hour=Decimal("0.2"),
    )
    bought = PrepaidHours(
        slot_hours=Decimal(20),
        usd_per_slot_hour=Decimal(1),
        overage_usd_per_slot_hour=Decimal(2),
        starts_at=START,
        ends_at=START + month,
    )
    saves = {"checkpoints": True, "checkpoint_write": MINUTE}
    jobs = [
        job("a", 6),
        job("b", 3, at=HOUR, due=12, markets=frozenset({Market.RESERVED, Market.ON_DEMAND})),
        job("c", 4, at=10 * HOUR, due=10, markets=frozenset({Market.SPOT, Market.ON_DEMAND}), **saves),
        job("d", 1, at=17.75 * HOUR, due=4, markets=frozenset({Market.SPOT, Market.PARTNER}), **saves),
    ]  # fmt: skip
    restarts = [replace(one.spec, restart_overhead=30 * MINUTE) for one in jobs]
    return scenario(
        pool("partner", Market.PARTNER, "5", commitment=minimum),
        pool("prepaid", Market.RESERVED, "5", commitment=bought),
        pool("spot", Market.SPOT, "1", grace_period=timedelta(0), preemptions_per_hour=0.01),
        pool("always", Market.ON_DEMAND, "3"),
        jobs=[replace(one, spec=spec) for one, spec in zip(jobs, restarts, strict=True)],
        outages=(*gone("spot", 11.75, 14), *gone("spot", 17.6, 99)),
    )


# Owed: 10 h at 3 $ and 20 h at 1 $. A prepaid hour is 1 $ effective and 5 $ by the list, one of the partner's 3.20 $ and 5 $.
#
# on_demand          a 0:00 to 6:30, b 6:30 to 10:00, c 10:00 to 14:33 with three checkpoints: 14.55 h at 3 $. d, which may not go
#                    there, waits from 17:45 to the end of the 62nd day.
# cheapest_per_hour  a on prepaid, 6.5 h. b on demand at once, 3.5 h. c on spot for 1.75 h, then with an hour done on demand for 3 h 32 min.
#                    d on the partner's at once, 1.5 h.
# greedy_spot        b waits for prepaid until 6:30. c waits for spot until 14:00 and is there for 3 h 32 min. d waits for spot until two restarts before
#                    the last moment, in whole looks 19:40.
# uniform_progress   b waits until the next look at it, 2:00, and is then behind the line: 3.5 h on demand. c is behind the line after 12:30 and
#                    looked at at 12:40; on demand until 15:00, when it is two restarts ahead, and until 15:01 to save; then on spot for 30 + 81 + 1
#                    minutes. d is behind the line at 17:50.
# spillway           b waits for prepaid, c for spot; d does not wait for spot that is dearer than the partner.
BY_HAND = """\
policy             added $  bill $  effective $  list $  on time  goodput  committed used  preempted  waited h  unfinished
on_demand            43.65   93.65        43.65   43.65    66.7%    89.3%            0.0%          0     368.9           1
cheapest_per_hour    23.15   73.15        34.15   62.85   100.0%    83.4%           22.0%          1       0.0           0
greedy_spot           5.58   55.58        20.08   62.78   100.0%    83.4%           29.0%          1       2.4           0
uniform_progress     21.30   71.30        32.30   61.00   100.0%    80.9%           22.0%          1       0.5           0
spillway              5.58   55.58        20.08   62.78   100.0%    83.4%           29.0%          1       1.9           0"""


def test_every_cell_of_the_table_is_what_was_worked_out_by_hand() -> None:
    summaries = [summarise(simulate(four_jobs(), STRATEGIES[name]())) for name in POLICIES]
    assert table(summaries) == BY_HAND
    used = {one.policy: [pool.utilisation for pool in one.pools[:2]] for one in summaries}
    assert used == {
        "on_demand": [0, 0],
        "cheapest_per_hour": pytest.approx([1.5 / 10, 6.5 / 20]),
        "greedy_spot": pytest.approx([1.5 / 10, 10 / 20]),
        "uniform_progress": pytest.approx([1.5 / 10, 6.5 / 20]),
        "spillway": pytest.approx([1.5 / 10, 10 / 20]),
    }
    assert [one.late for one in summaries] == [1, 0, 0, 0, 0]


# ---- always ---------------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(STRATEGIES)))
def test_nothing_is_lost_and_nothing_is_counted_twice(seed: int, name: str) -> None:
    world = team(24, seed)
    strategy: Strategy = STRATEGIES[name]()
    outcome = simulate(world, strategy)
    slots = {one.name: one.slots for one in world.pools}
    for attempt in outcome.attempts:
        parts = attempt.restart + attempt.writing + attempt.useful + attempt.lost
        assert parts == attempt.leased
        records = attempt.cost_records()
        if attempt.leased:
            assert records[0].charge_period_start == attempt.granted_at
            assert records[-1].charge_period_end == attempt.ended_at
        assert all(
            one.charge_period_end == two.charge_period_start for one, two in pairwise(records)
        )
        whole = sum((record.list_cost for record in records), Decimal(0))
        assert whole == attempt.usd(attempt.list_usd_per_hour)
    for one, told in zip(world.jobs, outcome.jobs, strict=True):
        mine = [attempt for attempt in outcome.attempts if attempt.job == one.name]
        held = sum((attempt.leased for attempt in mine), timedelta(0))
        assert told.finished_at is not None
        assert told.finished_at - one.arrives_at == held + told.waiting
        useful = sum((attempt.useful for attempt in mine), timedelta(0))
        assert abs(useful - one.spec.work) < timedelta(milliseconds=1)
        assert mine[-1].end is End.FINISHED
    for name_of_pool, there in slots.items():
        edges = sorted(
            edge
            for attempt in outcome.attempts
            if attempt.pool == name_of_pool and attempt.leased
            for edge in ((attempt.granted_at, 1), (attempt.ended_at, -1))
        )
        held_now = 0
        for _, change in edges:
            held_now += change
            assert held_now <= there


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_no_lease_is_held_while_its_slots_are_gone(name: str) -> None:
    world = team(60, 3)
    outcome = simulate(world, STRATEGIES[name]())
    steps = sorted(
        [(a.granted_at, 1, 1) for a in outcome.attempts if a.pool == "spot" and a.leased]
        + [(a.ended_at, 0, -1) for a in outcome.attempts if a.pool == "spot" and a.leased]
    )
    down: dict[int, bool] = {}
    changes = list(world.outages)
    held = 0
    for at, _, change in steps:
        while changes and changes[0].at <= at:
            down[changes[0].slot] = not changes[0].is_up
            changes.pop(0)
        held += change
        assert held <= 3 - sum(down.values()) or change < 0


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_equal_scenarios_have_equal_outcomes(name: str) -> None:
    once, again = (as_json(summarise(simulate(team(40, 11), STRATEGIES[name]()))) for _ in range(2))
    assert once == again


def test_a_job_whose_deadline_is_tight_is_never_late_while_on_demand_has_room() -> None:
    always = pool("always", Market.ON_DEMAND, "3", slots=12)
    spot = pool("spot", Market.SPOT, "1", slots=4, preemptions_per_hour=0.5)
    jobs = [
        job(f"{number}", 6, at=number * HOUR, due=7.5, checkpoints=True, restart_overhead=3 * MINUTE)
        for number in range(12)
    ]  # fmt: skip
    end = START + timedelta(days=31)
    outages = all_outages([spot], [], seed=5, start=START, end=end, until=end)
    outcome = simulate(scenario(always, spot, jobs=jobs, outages=outages), Spillway(TABLES))
    assert [one.name for one in outcome.jobs if not one.is_on_time] == []
    assert {attempt.pool for attempt in outcome.attempts} == {"always", "spot"}


def test_what_a_preemption_without_warning_costs_makes_no_job_late() -> None:
    """Spot goes 54 minutes after the start, before the first checkpoint; the job has half an hour beside its work."""
    always = pool("always", Market.ON_DEMAND, "3")
    spot = pool("spot", Market.SPOT, "1", preemptions_per_hour=1e-4, grace_period=timedelta(0))
    one = job("one", 6, due=6.5, checkpoints=True, checkpoint_write=MINUTE / 60)
    outages = gone("spot", 0.9, 99)
    world = scenario(always, spot, jobs=[one], outages=outages, look=MINUTE, patience=MINUTE)
    outcome = simulate(world, Spillway(TABLES))
    assert all(one.is_on_time for one in outcome.jobs)
    assert {attempt.pool for attempt in outcome.attempts} == {"always", "spot"}


def test_the_time_that_checkpoints_take_makes_no_job_late() -> None:
    """Twelve hours of work with a checkpoint of five minutes every hour, and spot capacity that never comes."""
    always = pool("always", Market.ON_DEMAND, "3")
    spot = pool("spot", Market.SPOT, "1")
    one = job("one", 12, due=15, checkpoints=True, checkpoint_write=5 * MINUTE)
    outcome = simulate(
        scenario(always, spot, jobs=[one], outages=gone("spot", 0, 99)), Spillway(TABLES)
    )
    assert outcome.jobs[0].waiting > HOUR
    assert outcome.jobs[0].is_on_time


@pytest.mark.parametrize(
    ("slack", "pools"), [(3, ["always"]), (5, ["always"]), (6, ["block", "always"])]
)
def test_owed_capacity_that_ends_is_left_alone_where_going_on_elsewhere_would_be_late(
    slack: int, pools: list[str]
) -> None:
    terms = CapacityBlock(usd_per_slot_hour=Decimal(1), starts_at=START, ends_at=START + 4 * HOUR)
    block = pool("block", Market.RESERVED, "2", commitment=terms)
    always = pool("always", Market.ON_DEMAND, "3")
    due = 6 + slack / 60
    one = job("one", 6, due=due, checkpoints=True, restart_overhead=3 * MINUTE)
    world = scenario(always, block, jobs=[one], look=MINUTE, patience=MINUTE)
    outcome = simulate(world, Spillway(TABLES))
    assert [attempt.pool for attempt in outcome.attempts] == pools
    assert outcome.jobs[0].is_on_time


def test_a_sweep_that_waits_for_spot_is_in_time_on_few_steady_slots() -> None:
    always = pool("always", Market.ON_DEMAND, "3", slots=2)
    spot = pool("spot", Market.SPOT, "1")
    jobs = [job(f"{number}", 1, due=12, checkpoints=True) for number in range(8)]
    outcome = simulate(
        scenario(always, spot, jobs=jobs, outages=gone("spot", 0, 99)), Spillway(TABLES)
    )
    assert [one.name for one in outcome.jobs if not one.is_on_time] == []
    first = min(attempt.granted_at for attempt in outcome.attempts)
    assert first - START > 6 * HOUR  # and they did wait
