"""What must hold of the policy over time, whatever the pools do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.catalog.value_tables import ValueTables, content_key
from spillway.errors import SpecError
from spillway.model import Market, codec
from spillway.placement.availability import chain_of
from spillway.placement.availability_prior import LEARNED, prior
from spillway.placement.policy import decide, still_serves, table_spec
from spillway.placement.policy_values import (
    Action,
    Decision,
    Held,
    JobProgress,
    PolicyState,
    PoolView,
)
from spillway.placement.value_table import ALONE, TableSpec, build_table
from spillway.placement.weighing import fallback_of

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LOOK = timedelta(minutes=10)
RESTART = timedelta(minutes=6)
TABLES = ValueTables()


def job(work_h: float = 6, slack_h: float = 2, **changes: object) -> JobProgress:
    progress = JobProgress(
        work_left=timedelta(hours=work_h),
        deadline=NOW + timedelta(hours=work_h + slack_h),
        restart_overhead=RESTART,
        next_look=LOOK,
    )
    return replace(progress, **changes)  # type: ignore[arg-type]  # a test's shorthand


def spot(name: str = "spot", price: float = 1.0, *, available: bool | None = True) -> PoolView:
    return PoolView(name=name, market=Market.SPOT, usd_per_hour=price, available=available)


def on_demand(price: float = 3.0) -> PoolView:
    return PoolView(name="on_demand", market=Market.ON_DEMAND, usd_per_hour=price)


def block(hours: float, price: float = 0.0, *, available: bool | None = True) -> PoolView:
    """Reserved capacity that ends in so many hours."""
    return PoolView(
        name="block",
        market=Market.RESERVED,
        usd_per_hour=price,
        available=available,
        ends_at=NOW + timedelta(hours=hours),
    )


def ask(progress: JobProgress, pools: list[PoolView], now=NOW, state=None, spec=None):
    spots = sum(not pool.is_steady for pool in pools)
    model = prior(spots)
    table = TABLES.get(spec or table_spec(progress, pools, now), model)
    return decide(progress, pools, now, state or PolicyState(), table=table, model=model)


@cache
def small_table(work_h: float = 6.0, slack_h: float = 6.0):
    return build_table(
        TableSpec(
            look_hours=1 / 6,
            looks_per_step=1,
            work_hours=work_h,
            slack_hours=slack_h,
            restart_hours=0.1,
            spot_price=0.33,
            evictions_per_hour=ALONE,
        ),
        LEARNED,
    )


def test_spot_capacity_is_taken_when_there_is_time():
    decision, _ = ask(job(), [spot(), on_demand()])
    assert (decision.action, decision.pool) == (Action.RUN, "spot")


def test_a_free_reservation_is_taken_before_everything():
    reserved = PoolView(name="reserved", market=Market.RESERVED, usd_per_hour=0.0)
    decision, _ = ask(job(), [spot(), on_demand(), reserved])
    assert decision.pool == "reserved"


@pytest.mark.parametrize(
    ("slack_minutes", "ends_h", "pool"),
    [
        (7, 4, "on_demand"),  # another restart, after its end, would be late
        (11, 4, "on_demand"),
        (12, 4, "block"),
        (90, 4, "block"),
        (7, 6.09, "on_demand"),
        (7, 6.11, "block"),  # the work is done before it ends, if after a restart only just
        (7, 99, "block"),
    ],
)
def test_steady_capacity_that_ends_is_taken_while_there_is_time_to_go_on_elsewhere(
    slack_minutes, ends_h, pool
):
    progress = job(slack_h=slack_minutes / 60)
    assert ask(progress, [block(ends_h), on_demand()])[0].pool == pool
    decision, _ = ask(progress, [block(ends_h), spot(available=False), on_demand()])
    assert decision.pool == pool


@pytest.mark.parametrize(
    ("ends_h", "has_room", "last_resort"),
    [
        (4, True, "on_demand"),
        (7, True, "on_demand"),
        (99, True, "block"),
        (4, False, "on_demand"),
        (7, False, "block"),
        (99, False, "block"),
    ],
)
def test_what_ends_before_the_work_is_done_is_no_last_resort(ends_h, has_room, last_resort):
    pools = [block(ends_h), replace(on_demand(), available=has_room)]
    assert fallback_of(pools, job(), NOW).name == last_resort


def test_a_pool_that_ends_before_the_deadline_is_to_be_started_on_the_earlier():
    late_start = job(work_h=2, slack_h=6)  # the deadline is in 8 hours, and the block ends in 3
    decision, _ = ask(late_start, [block(3, price=3.0), spot()])
    assert {option.pool: option.in_time for option in decision.options} == {
        None: True,
        "spot": True,
        "block": True,
    }
    decision, _ = ask(late_start, [block(2.25, price=3.0), spot()])
    assert {option.pool: option.in_time for option in decision.options} == {
        None: False,
        "spot": False,
        "block": True,
    }


def test_free_hours_count_until_they_end():
    def expected(pools: list[PoolView]) -> float:
        return cost_of(ask(job(slack_h=3), pools)[0], pools[0].name)

    assert expected([block(99), on_demand()]) == 0.0
    assert expected([block(4), on_demand()]) == pytest.approx(3.0 * (2 + 2 * 0.1))
    assert expected([block(4), spot(), on_demand()]) < 3.0 * (2 + 2 * 0.1)


@pytest.mark.parametrize(
    ("is_saved_on_notice", "action"),
    [(False, Action.CHECKPOINT_AND_MOVE), (True, Action.RUN)],
)
def test_capacity_is_left_before_it_ends_with_what_is_not_saved(is_saved_on_notice, action):
    held = Held(
        pool="block",
        uncommitted=timedelta(minutes=28),
        is_saved_on_notice=is_saved_on_notice,
    )
    progress = job(slack_h=5, held=held, checkpoints_every=timedelta(minutes=30))
    decision, _ = ask(progress, [block(9 / 60), on_demand()])
    assert decision.action is action
    assert ask(progress, [block(11 / 60), on_demand()])[0].action is Action.RUN


def test_a_start_where_the_state_is_dear_to_read_costs_that_much_more():
    near, far = spot("near"), replace(spot("far", 0.9), move_usd=5.0)

    def expected(pools: list[PoolView], held: Held | None = None) -> dict[str | None, float]:
        decision, _ = ask(job(held=held), pools)
        return {option.pool: option.expected_usd for option in decision.options}

    dear = expected([near, far, on_demand()])
    free = expected([near, replace(far, move_usd=0.0), on_demand()])
    there = expected([near, far, on_demand()], Held(pool="far"))
    assert free["far"] < free["near"] < dear["far"]
    assert dear["far"] - free["far"] == pytest.approx(5.0)
    assert there["far"] < dear["far"] - 5.0  # it is there already, and needs no restart either


def seen_open(pools: list[PoolView], spec: TableSpec, hours: int = 10) -> PolicyState:
    """What is remembered of pools that have been as they are now for `hours`."""
    state = PolicyState()
    for look in range(hours + 1):
        now = NOW - timedelta(hours=hours - look)
        _, state = ask(job(), pools, now, state, spec)
    return state


@pytest.mark.parametrize("others", [[], [1.1]])
@given(price=st.floats(0.97, 1.12), work_h=st.floats(0.2, 6.0))
@settings(max_examples=25, deadline=None)
def test_open_spot_capacity_is_not_waited_for_where_its_price_is_not_the_table_s(
    others, price, work_h
):
    progress = job(work_h=work_h, slack_h=6)
    rest = [spot("dear", other) for other in others]
    spec = table_spec(job(work_h=6, slack_h=6), [spot(), *rest, on_demand()], NOW)
    pools = [spot(price=price), *rest, on_demand()]
    assert still_serves(
        replace(spec, work_hours=99.0, slack_hours=99.0), table_spec(progress, pools, NOW)
    )
    decision, _ = ask(progress, pools, NOW, seen_open(pools, spec), spec)
    assert decision.pool is not None
    assert decision.options[0].expected_usd < cost_of(decision, None)


@pytest.mark.parametrize("look_s", [60, 195, 600])
@pytest.mark.parametrize("restart_minutes", [0, 3, 12])
def test_spot_capacity_that_is_held_is_not_left_at_the_end_of_a_job(look_s, restart_minutes):
    pools = [spot(), on_demand()]
    begin = job(
        work_h=48,
        slack_h=22,
        restart_overhead=timedelta(minutes=restart_minutes),
        next_look=timedelta(seconds=look_s),
    )
    spec = table_spec(begin, pools, NOW)
    state = seen_open(pools, spec)
    for minutes in (0.5, 2, 5, 9, 13, 20, 40):
        left = replace(begin, work_left=timedelta(minutes=minutes), held=Held(pool="spot"))
        decision, _ = ask(left, pools, NOW, state, spec)
        assert decision.pool == "spot"


@pytest.mark.parametrize("restart_minutes", [0, 2, 10])
def test_a_start_every_pool_adds_to_is_not_put_off(restart_minutes):
    every = timedelta(minutes=restart_minutes)
    pools = [replace(pool, extra_restart=every, move_usd=0.2) for pool in (spot(), on_demand())]
    progress = job(work_h=1.6, slack_h=6)
    spec = table_spec(progress, pools, NOW)
    assert spec.restart_hours == pytest.approx(0.1 + restart_minutes / 60, abs=1e-5)
    decision, _ = ask(progress, pools, NOW, seen_open(pools, spec), spec)
    assert decision.pool == "spot"


@pytest.mark.parametrize("usd", [0.01, 0.2, 3.0])
@pytest.mark.parametrize("held", [None, "on_demand"])
def test_open_spot_capacity_that_is_far_from_the_state_is_taken_while_it_saves(held, usd):
    # On demand the state is near. Whoever waits for spot capacity, or bides its time there, has to read it all the same.
    far = replace(spot(), move_usd=usd)
    progress = job(slack_h=6, held=None if held is None else Held(pool=held))
    decision, _ = ask(progress, [far, on_demand()])
    assert decision.pool == "spot"
    assert decision.options[0].expected_usd < min(o.expected_usd for o in decision.options[1:])


def test_capacity_that_is_too_far_from_the_state_is_neither_taken_nor_waited_for():
    for available in (True, False):
        far = replace(spot(available=available), move_usd=15.0)
        assert ask(job(slack_h=6), [far, on_demand()])[0].pool == "on_demand"


@pytest.mark.parametrize(
    ("far_usd", "near_usd", "move_usd", "goes"),
    [(1.0, 2.0, 15.0, "near"), (1.0, 2.0, 3.0, "far"), (0.0, 2.0, 3.0, "far")],
)
def test_nobody_waits_for_the_last_resort_whose_start_is_dear(far_usd, near_usd, move_usd, goes):
    far = replace(on_demand(far_usd), name="far", move_usd=move_usd)
    slow = replace(far, extra_restart=timedelta(minutes=9), move_usd=0.0)
    near = replace(on_demand(near_usd), name="near")
    assert ask(job(slack_h=6), [far, near])[0].pool == goes
    assert ask(job(slack_h=6), [slow, near])[0].pool == "far"


@pytest.mark.parametrize("far_usd", [0.0, 0.1, 1.0])
def test_open_spot_capacity_is_taken_where_the_last_resort_is_far_from_the_state(far_usd):
    far = replace(on_demand(far_usd), name="far", move_usd=15.0)
    assert ask(job(slack_h=6), [spot(), far])[0].pool == "spot"


def test_a_dearer_spot_pool_is_taken_where_the_cheaper_one_is_full():
    pools = [spot("full", available=False), spot("open", 1.1), on_demand()]
    progress = job(work_h=1, slack_h=10)
    assert ask(progress, pools)[0].pool == "open"


def cost_of(decision: Decision, pool: str | None) -> float:
    return next(option.expected_usd for option in decision.options if option.pool == pool)


def test_a_job_without_deadline_waits_for_spot():
    decision, _ = ask(job(deadline=None), [spot(available=False), on_demand()])
    assert decision.action is Action.WAIT


def test_without_slack_the_job_goes_to_steady_capacity():
    decision, _ = ask(job(slack_h=0.11), [spot(), on_demand()])
    assert decision.pool == "on_demand"


def test_a_job_holding_spot_without_slack_stays_while_nothing_uncommitted_is_at_risk():
    held = job(slack_h=0.1, held=Held(pool="spot"))
    assert ask(held, [spot(), on_demand()])[0].pool == "spot"
    at_risk = replace(held, checkpoints_every=timedelta(minutes=5))
    assert ask(at_risk, [spot(), on_demand()])[0].pool == "on_demand"


@pytest.mark.parametrize(
    ("unsaved", "saves_every", "is_saved_on_notice", "pool"),
    [
        (28, 30, False, "on_demand"),
        (28, 30, True, "spot"),  # what the warning time is long enough to save is not lost
        (12, 30, False, "spot"),
        (13, 30, False, "on_demand"),
        (13, 2, False, "on_demand"),  # a save that is overdue is not reckoned with
        (3, 3, False, "spot"),
    ],
)
def test_spot_capacity_is_held_only_while_what_it_would_lose_could_be_made_up_for(
    unsaved, saves_every, is_saved_on_notice, pool
):
    """There are 29 minutes beside the work: 6 for a restart, 10 until the next look, and 13, less a second, to lose."""
    held = Held(
        pool="spot",
        uncommitted=timedelta(minutes=unsaved),
        is_saved_on_notice=is_saved_on_notice,
    )
    progress = job(
        slack_h=29 / 60 - 1 / 3600, held=held, checkpoints_every=timedelta(minutes=saves_every)
    )
    assert ask(progress, [spot(), on_demand()])[0].pool == pool


def test_work_no_checkpoint_holds_is_saved_before_a_move():
    held = Held(pool="on_demand", uncommitted=timedelta(minutes=3))
    decision, _ = ask(job(work_h=8, slack_h=6, held=held), [spot(), on_demand()])
    assert (decision.action, decision.pool) == (Action.CHECKPOINT_AND_MOVE, "spot")


def test_without_a_steady_pool_there_is_no_policy():
    with pytest.raises(SpecError, match="no steady pool"):
        table_spec(job(), [spot()], NOW)


def test_every_open_pool_and_waiting_are_explained():
    decision, _ = ask(job(), [spot("a"), spot("b", available=False), on_demand()])
    assert {option.pool for option in decision.options} == {None, "a", "on_demand"}


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 3600))
@settings(max_examples=30, deadline=None)
def test_equal_inputs_give_equal_answers_and_the_state_survives_json(seen, gap_s):
    state, now = PolicyState(), NOW
    progress = job()
    for available in seen:
        pools = [spot(available=available), on_demand()]
        spec = table_spec(job(), pools, NOW)
        first, after = ask(progress, pools, now, state, spec)
        restored = codec.decode_json(codec.encode_json(state), PolicyState)
        again, after_again = ask(progress, pools, now, restored, spec)
        assert (first, after) == (again, after_again)
        state, now = after, now + timedelta(seconds=gap_s)


def test_the_order_of_pools_is_irrelevant():
    pools = [spot("a"), spot("b", 1.1), spot("c", available=False), on_demand()]
    assert ask(job(), pools)[0] == ask(job(), pools[::-1])[0]


@given(
    st.data(),
    st.integers(0, 12),
    st.integers(0, 3),
    st.sampled_from([0, 4, 10, 25, 70]),
    st.booleans(),
    st.sampled_from([None, 10, 20, 60]),
    st.integers(0, 250),
)
@settings(max_examples=100, deadline=None)
def test_no_run_is_late_whatever_the_pools_do(
    data, slack_looks, zones_less_one, saves_every, is_saved_on_notice, spite, block_minutes
):
    """An adversary flips the pools, or takes what is held once `spite` minutes of its work are not saved.

    There is free capacity too, which ends after `block_minutes`. The world is written apart from the policy: ticks, restarts, losses of what is not saved.
    """
    look, restart = LOOK, RESTART
    zones = [f"z{number}" for number in range(zones_less_one + 1)]
    left, work = timedelta(hours=3), timedelta(hours=3)
    deadline = NOW + work + restart + look * slack_looks
    interval = timedelta(minutes=saves_every)
    now, state, held, pending, unsaved = NOW, PolicyState(), None, timedelta(0), timedelta(0)
    spec = None
    while left > timedelta(0):
        up = {zone: spite is not None or data.draw(st.booleans()) for zone in zones}
        if held in up and spite is not None and unsaved >= timedelta(minutes=spite):
            up[held] = False
        free = block(block_minutes / 60, available=now < NOW + timedelta(minutes=block_minutes))
        up["block"] = bool(free.available)
        if held in up and not up[held]:
            held = None
            left += timedelta(0) if is_saved_on_notice else unsaved
            unsaved = timedelta(0)
        pools = [*(spot(zone, available=up[zone]) for zone in zones), free, on_demand()]
        progress = JobProgress(
            work_left=left,
            deadline=deadline,
            restart_overhead=restart,
            next_look=look,
            held=None
            if held is None
            else Held(
                pool=held,
                restart_left=pending,
                uncommitted=unsaved,
                is_saved_on_notice=is_saved_on_notice,
            ),
            checkpoints_every=interval,
        )
        spec = spec or table_spec(progress, pools, now)
        decision, state = ask(progress, pools, now, state, spec)
        if decision.pool is not None:
            if decision.pool != held:
                held, pending, unsaved = decision.pool, restart, timedelta(0)
            lasts = look if held != "block" else min(look, free.ends_at - now)
            served = min(pending, lasts)
            pending -= served
            done = min(lasts - served, left)
            left -= done
            unsaved = (unsaved + done) % interval if interval else timedelta(0)
            finished = now + served + done
        else:
            held, unsaved = None, timedelta(0)
        now += look
    assert finished <= deadline


def test_a_longer_deadline_never_costs_more_in_expectation():
    table = small_table()
    for costs in (table.idle, table.steady, *table.spot.reshape(-1, *table.spot.shape[2:])):
        assert (np.diff(costs, axis=1) <= 0).all()


@pytest.mark.parametrize("others", [[], [(1.05, True)], [(1.05, False), (0.95, True)]])
@given(
    work_h=st.floats(0.1, 6.0),
    slack_h=st.floats(0.3, 6.0),
    more_h=st.floats(0.0, 3.0),
    price=st.floats(0.9, 1.1),
    available=st.booleans(),
    held=st.sampled_from([None, "spot", "on_demand"]),
)
@settings(max_examples=60, deadline=None)
def test_a_longer_deadline_never_costs_a_job_more(
    others, work_h, slack_h, more_h, price, available, held
):
    rest = [spot(f"other {n}", dear, available=there) for n, (dear, there) in enumerate(others)]
    pools = [spot(price=price, available=available), *rest, on_demand()]
    spec = table_spec(job(work_h=6, slack_h=6), [spot(), *rest, on_demand()], NOW)
    at = Held(pool=held) if held and (available or held != "spot") else None
    shorter, longer = (
        ask(job(work_h, hours, held=at), pools, spec=spec)[0].options[0]
        for hours in (slack_h, slack_h + more_h)
    )
    assert longer.expected_usd <= shorter.expected_usd + 1e-6


def test_completing_never_costs_more_than_steady_capacity_alone():
    table = small_table()
    for work in (1.0, 3.0, 5.5):
        assert (table.idle_costs(work, 1.0) <= work + 0.1 + 2 / 6 + 1e-4).all()


def test_dearer_spot_capacity_never_costs_less():
    cheap = small_table()
    dear = build_table(replace(cheap.spec, spot_price=0.6), LEARNED)
    assert (dear.idle >= cheap.idle - 1e-4).all()


def test_a_similar_job_further_on_is_served_by_the_same_table():
    pools = [spot(), on_demand()]
    spec = table_spec(job(work_h=6), pools, NOW)
    assert still_serves(spec, table_spec(job(work_h=3), pools, NOW))
    assert not still_serves(spec, table_spec(job(work_h=30), pools, NOW))
    assert not still_serves(spec, table_spec(job(), [spot(price=2.0), on_demand()], NOW))


def test_beliefs_are_chances_and_follow_what_is_seen():
    chain = chain_of(LEARNED)
    up = chain.condition(chain.stationary, available=True)
    later = chain.predict(up, 2.0)
    assert later.sum() == pytest.approx(1.0)
    assert (later >= 0).all()
    halves = chain.predict(chain.predict(up, 1.0), 1.0)
    assert halves == pytest.approx(later, abs=1e-9)


@pytest.mark.parametrize("hours", [1e-6, 4 / 3600, 1 / 6, 3.3337, 50.0])
def test_a_belief_is_carried_over_any_span_as_its_matrix_would(hours):
    chain = chain_of(LEARNED)
    up = chain.condition(chain.stationary, available=True)
    assert chain.predict(up, hours) == pytest.approx(up @ chain.step(hours), abs=1e-8)


def test_after_years_a_belief_is_that_of_the_long_run():
    chain = chain_of(LEARNED)
    up = chain.condition(chain.stationary, available=True)
    assert chain.predict(up, 1e6) == pytest.approx(chain.stationary, abs=1e-4)


def test_stationary_shares_stay_as_they_are():
    chain = chain_of(LEARNED)
    assert chain.stationary @ chain.step(1.0) == pytest.approx(chain.stationary, abs=1e-9)


@pytest.mark.parametrize("factor", [1.5, 2.0, 5.0])
def test_a_lossier_model_is_available_less_of_the_time(factor):
    as_learned, lossier = chain_of(LEARNED), chain_of(LEARNED.lossier(factor))
    half = as_learned.half
    assert lossier.stationary[half:].sum() < as_learned.stationary[half:].sum()
    assert (lossier.mean_stay_hours[half:] < as_learned.mean_stay_hours[half:]).all()


def test_a_lone_pool_is_believed_no_steadier_than_one_of_several():
    alone, among = chain_of(prior(1)), chain_of(prior(2))
    assert (alone.mean_stay_hours[alone.half :] <= among.mean_stay_hours[among.half :]).all()


def test_tables_are_kept_on_disk_and_a_broken_file_is_made_again(tmp_path):
    spec = small_table(2.0, 1.0).spec
    built = ValueTables(tmp_path).get(spec, LEARNED)
    path = tmp_path / f"{content_key(spec, LEARNED)}.npz"
    assert np.array_equal(ValueTables(tmp_path).get(spec, LEARNED).spot, built.spot)
    path.write_bytes(b"torn")
    assert np.array_equal(ValueTables(tmp_path).get(spec, LEARNED).idle, built.idle)


def test_memory_for_tables_is_bounded():
    tables = ValueTables(memory_bytes=1)
    spec = small_table(2.0, 1.0).spec
    tables.get(spec, LEARNED)
    tables.get(replace(spec, spot_price=0.5), LEARNED)
    assert len(tables._tables) == 1
