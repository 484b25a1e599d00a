"""Speeds seeded by data sheets, learned from progress, and hoped for only where no deadline hangs on it."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.catalog.offers import make_offers
from spillway.model import (
    Heartbeat,
    Market,
    Placement,
    Pool,
    Resources,
    SpeedSample,
    TaskSpec,
)
from spillway.placement.choose import choose
from spillway.placement.fractions import in_slices
from spillway.placement.throughput import (
    HALF_LIFE,
    SpeedBelief,
    learn,
    relative_speed,
    seed,
    speed_sample,
    speed_to_reckon_with,
    with_learned_speeds,
)
from spillway.testing.lease_strategies import heartbeats
from spillway.testing.strategies import pools, speed_samples, tasks

NOW = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
TRAIN = TaskSpec(
    entry_point="package.module:train",
    workload="gpt",
    resources=Resources(accelerator_count=1),
    work=10 * HOUR,
    checkpoints=True,
    checkpoint_write=timedelta(seconds=1),
)


def gpu(accelerator: str, usd_per_hour: str, count: int = 1) -> Pool:
    return Pool(
        name=accelerator.lower(),
        backend="local",
        market=Market.ON_DEMAND,
        slots=8,
        shape=Resources(accelerator=accelerator, accelerator_count=count),
        list_usd_per_hour=Decimal(usd_per_hour),
    )


def sample(speed: float, *, accelerator: str = "H100", ago: timedelta = HOUR) -> SpeedSample:
    return SpeedSample(
        workload="gpt",
        accelerator=accelerator,
        accelerator_count=1,
        speed=speed,
        hours=1.0,
        measured_at=NOW - ago,
    )


# ---- the seed


@pytest.mark.parametrize(
    ("faster", "slower", "least", "most"),
    [
        # Published MLPerf Training results of the same size: H100 against A100, by model.
        ("H100", "A100-80GB", 2.0, 3.2),
        ("A100", "V100", 1.5, 3.0),
        ("H100", "L4", 7.0, 13.0),
        ("B200", "H100", 1.7, 2.6),
    ],
)
def test_the_table_ranks_machines_about_as_benchmarks_do(
    faster: str, slower: str, least: float, most: float
) -> None:
    one, other = relative_speed(faster), relative_speed(slower)
    assert one is not None
    assert other is not None
    assert least <= one / other <= most


def test_a_configured_speed_goes_before_the_table() -> None:
    assert seed(TRAIN, replace(gpu("H100", "4"), speed=3.0)).speed == pytest.approx(3.0)


def test_more_accelerators_than_asked_for_help_but_not_in_full() -> None:
    one, eight = seed(TRAIN, gpu("H100", "4")), seed(TRAIN, gpu("H100", "4", count=8))
    assert 6 < eight.speed / one.speed < 8


def test_an_unknown_machine_is_thought_average_and_uncertain() -> None:
    unknown = seed(TRAIN, gpu("Photon-1", "4"))
    assert unknown.speed == pytest.approx(1.0)
    assert unknown.spread > seed(TRAIN, gpu("H100", "4")).spread


def test_an_l4_does_not_beat_an_h100_merely_by_the_hour() -> None:
    assert placed([gpu("L4", "0.80"), gpu("H100", "3.00")], TRAIN) == "h100"


TENTH = Resources(cpus=0.1, memory_gib=0.1, accelerator_count=1, accelerator_fraction=0.1)
SLICED = replace(TRAIN, resources=TENTH)


@pytest.mark.parametrize(
    ("profile", "part"),
    [("1g.10gb", 1 / 7), ("1g.20gb", 1 / 7), ("3g.40gb", 3 / 7), ("7g.80gb", 1)],
)
def test_a_slice_is_as_fast_as_its_share_of_compute(profile: str, part: float) -> None:
    whole = gpu("H100", "7")
    assert seed(SLICED, in_slices(whole, profile)).speed == pytest.approx(
        part * seed(SLICED, whole).speed
    )


def test_a_slice_does_not_win_merely_for_its_price() -> None:
    """A quarter of the price, for the memory, and a seventh of the speed."""
    whole = gpu("H100", "7")
    quarter = replace(in_slices(whole, "1g.20gb"), name="slice")
    assert placed([whole, quarter], SLICED) == "h100"
    cheap = replace(quarter, list_usd_per_hour=Decimal("0.9"))
    assert placed([whole, cheap], SLICED) == "slice"


def test_a_slice_and_a_whole_one_are_learned_apart() -> None:
    """Work that does not fill a whole accelerator goes as fast in a slice, which shows after a few leases."""
    whole = gpu("H100", "7")
    quarter = replace(in_slices(whole, "1g.20gb"), name="slice")
    seen = [sample(2.3), sample(2.3), sample(2.3)]
    assert placed([whole, quarter], SLICED, *seen) == "h100"
    parts = [replace(one, accelerator_fraction=0.25) for one in seen]
    assert placed([whole, quarter], SLICED, *seen, *parts) == "slice"


def placed(some: list[Pool], task: TaskSpec, *seen: SpeedSample) -> str:
    fast = with_learned_speeds(some, task, seen, NOW)
    offers = make_offers(fast, usage={}, free_slots={}, task=task, now=NOW)
    decision = choose(task, offers, NOW)
    assert isinstance(decision, Placement)
    return decision.offer.pool


# ---- what progress says


def test_a_share_of_the_steps_left_is_that_share_of_the_work_left() -> None:
    heartbeat = Heartbeat(
        token=1,
        written_at=NOW + HOUR,
        step=300,
        total_steps=1100,
        first_progress_at=NOW,
        first_step=100,
    )
    seen = speed_sample(TRAIN, gpu("H100", "1").shape, heartbeat)
    assert seen == SpeedSample(
        workload="gpt",
        accelerator="H100",
        accelerator_count=1,
        speed=2.0,
        hours=1.0,
        measured_at=NOW + HOUR,
    )
    part = speed_sample(TRAIN, in_slices(gpu("H100", "1"), "3g.40gb").shape, heartbeat)
    assert part == replace(seen, accelerator_fraction=0.5)


def test_work_of_processors_says_nothing_of_the_accelerators_beside_them() -> None:
    heartbeat = Heartbeat(
        token=1,
        written_at=NOW,
        step=60,
        total_steps=110,
        first_step=10,
        first_progress_at=NOW - 2 * HOUR,
    )
    prepare = replace(TRAIN, resources=Resources(cpus=1))
    seen = speed_sample(prepare, gpu("H100", "1").shape, heartbeat)
    assert seen is not None
    assert (seen.accelerator, seen.accelerator_count) == (None, 0)
    (h100,) = with_learned_speeds([gpu("H100", "1")], TRAIN, [seen], NOW)
    assert h100 == with_learned_speeds([gpu("H100", "1")], TRAIN, [], NOW)[0]


@pytest.mark.parametrize(
    "missing",
    [
        {"total_steps": None},
        {"first_step": None},
        {"first_progress_at": None},
        {"step": 100},
        {"written_at": NOW + timedelta(seconds=30)},
    ],
)
def test_a_heartbeat_that_says_too_little_is_no_sample(missing: dict[str, object]) -> None:
    whole: dict[str, object] = {
        "token": 1,
        "written_at": NOW + HOUR,
        "step": 300,
        "total_steps": 1000,
        "first_progress_at": NOW,
        "first_step": 100,
    }
    heartbeat = Heartbeat(**{**whole, **missing})  # type: ignore[arg-type]  # fields by name
    assert speed_sample(TRAIN, Resources(), heartbeat) is None


@given(tasks(), heartbeats())
def test_every_sample_is_a_speed(task: TaskSpec, heartbeat: Heartbeat) -> None:
    seen = speed_sample(task, Resources(), heartbeat)
    assert seen is None or (seen.speed >= 0 and seen.hours > 0)


# ---- learning


def test_leases_outweigh_the_table() -> None:
    rng = random.Random(4)
    start = seed(TRAIN, gpu("H100", "4"))
    seen = [sample(1.2 * math.exp(rng.gauss(0, 0.1))) for _ in range(30)]
    belief = learn(start, seen, NOW)
    assert belief.speed == pytest.approx(1.2, rel=0.05)
    assert belief.spread < start.spread / 5


def test_new_leases_outweigh_old_ones() -> None:
    start = seed(TRAIN, gpu("H100", "4"))
    seen = [
        *[sample(1.0, ago=6 * HALF_LIFE) for _ in range(20)],
        *[sample(2.0, ago=HOUR) for _ in range(5)],
    ]
    assert learn(start, seen, NOW).speed > 1.8


def test_nothing_seen_leaves_the_seed() -> None:
    start = seed(TRAIN, gpu("L4", "1"))
    assert learn(start, [], NOW) == start


def test_the_spread_is_as_wide_as_the_error_turns_out() -> None:
    """Over many machines drawn from the prior, the belief's error is what it says it is."""
    rng, start = random.Random(8), SpeedBelief(log_speed=0.0, spread=math.log(1.5))
    off: list[float] = []
    for _ in range(500):
        true = rng.gauss(0.0, start.spread)
        seen = [sample(math.exp(true + rng.gauss(0, math.log(1.15))), ago=HOUR) for _ in range(3)]
        belief = learn(start, seen, NOW)
        off.append((belief.log_speed - true) / belief.spread)
    assert statistics.pstdev(off) == pytest.approx(1.0, abs=0.25)


@given(st.lists(speed_samples(), min_size=1, max_size=6), st.floats(0.01, 100), st.floats(0.05, 2))
def test_what_is_believed_lies_between_the_seed_and_what_was_seen(
    seen: list[SpeedSample], speed: float, spread: float
) -> None:
    start = SpeedBelief(log_speed=math.log(speed), spread=spread)
    speeds = [speed, *(each.speed for each in seen)]
    belief = learn(start, seen, NOW)
    assert min(speeds) * (1 - 1e-9) <= belief.speed <= max(speeds) * (1 + 1e-9)
    assert belief.spread > 0


# ---- exploring


UNKNOWN = SpeedBelief(log_speed=0.0, spread=math.log(2))


@pytest.mark.parametrize(
    ("left", "is_hopeful"),
    [(None, True), (100 * HOUR, True), (64 * HOUR, True), (60 * HOUR, False), (HOUR, False)],
)
def test_a_deadline_is_not_bet_on_an_unknown(left: timedelta | None, is_hopeful: bool) -> None:
    """At the cautious speed ten hours of work take 31, which must fit twice."""
    speed = speed_to_reckon_with(UNKNOWN, work=10 * HOUR, overhead=timedelta(0), left=left)
    assert (speed > UNKNOWN.speed) == is_hopeful
    assert (speed < UNKNOWN.speed) != is_hopeful


@given(st.floats(0.1, 10), st.floats(0.01, 1), st.integers(0, 1000), st.integers(0, 1000))
def test_more_time_never_makes_for_more_caution(
    speed: float, spread: float, one: int, other: int
) -> None:
    belief = SpeedBelief(log_speed=math.log(speed), spread=spread)
    tight, loose = (
        speed_to_reckon_with(belief, work=10 * HOUR, overhead=HOUR, left=left * HOUR)
        for left in sorted((one, other))
    )
    assert tight <= loose


@given(pools(), tasks(), st.lists(speed_samples(), max_size=4))
def test_work_without_accelerators_goes_at_the_configured_speed(
    pool: Pool, task: TaskSpec, seen: list[SpeedSample]
) -> None:
    plain = replace(task, resources=Resources())
    assert with_learned_speeds([pool], plain, seen, NOW) == (pool,)


PROCESSORS = Resources(cpus=32, memory_gib=64)
CPUS = replace(gpu("none", "1"), name="cpus", shape=PROCESSORS)
EITHER = replace(TRAIN, resources=PROCESSORS, alternatives=(Resources(accelerator_count=1),))


def test_accelerators_that_are_an_alternative_are_learned_too() -> None:
    """An H100 does in an hour what the processors do in six, which shows after a few leases."""
    some = [CPUS, gpu("H100", "3"), gpu("L4", "0.9")]
    seen = [sample(6.0) for _ in range(10)]
    cpus, fast, unseen = with_learned_speeds(some, EITHER, seen, NOW)
    assert cpus == CPUS
    assert fast.speed == pytest.approx(6.0, rel=0.1)
    assert unseen.speed != 1.0
    assert placed(some, EITHER, *seen) == "h100"
    slow = [replace(one, speed=2.0) for one in seen]
    assert placed(some[:2], EITHER, *slow) == "cpus"


def test_against_processors_a_data_sheet_says_less() -> None:
    assert seed(EITHER, gpu("H100", "3")).spread > seed(TRAIN, gpu("H100", "3")).spread


def test_processors_that_are_an_alternative_go_at_the_configured_speed() -> None:
    task = replace(TRAIN, alternatives=(PROCESSORS,))
    assert with_learned_speeds([CPUS], task, [], NOW) == (CPUS,)


def test_an_alternative_is_held_against_what_was_asked_for_first() -> None:
    """Work is said of eight accelerators, so that one is slow, asked for or not."""
    eight = replace(TRAIN, resources=Resources(accelerator_count=8))
    one_too = replace(eight, alternatives=(Resources(accelerator_count=1),))
    assert seed(one_too, gpu("H100", "3")) == seed(eight, gpu("H100", "3"))
    assert seed(one_too, gpu("H100", "3")).speed < 0.5


# Truly the best is an accelerator that no table knows; the table's favourite is a disappointment for this workload.
TRULY = {"H100": 1.1, "A100-80GB": 1.0, "Photon-1": 2.0}
MACHINES = [gpu("H100", "2.40"), gpu("A100-80GB", "1.60"), gpu("Photon-1", "1.90")]


def campaign(jobs: int, deadline: timedelta | None, rng: random.Random) -> list[tuple[str, float]]:
    """Place job after job, each reporting how fast it went; return where it ran and how long."""
    seen: list[SpeedSample] = []
    ran: list[tuple[str, float]] = []
    by_name = {pool.name: pool.shape.accelerator or "" for pool in MACHINES}
    for _ in range(jobs):
        task = replace(TRAIN, deadline=None if deadline is None else NOW + deadline)
        name = placed(MACHINES, task, *seen)
        speed = TRULY[by_name[name]] * math.exp(rng.gauss(0, 0.05))
        ran.append((name, TRAIN.work / HOUR / speed))
        seen.append(sample(speed, accelerator=by_name[name]))
    return ran


def test_the_best_machine_is_found_although_the_table_favours_another() -> None:
    ran = campaign(30, None, random.Random(1))
    assert [name for name, _ in ran[-20:]] == ["photon-1"] * 20
    prices = {pool.name: float(pool.list_usd_per_hour) for pool in MACHINES}
    spent = sum(prices[name] * hours for name, hours in ran)
    assert spent < 1.1 * 30 * 1.90 * 10 / 2.0


def test_a_tight_deadline_is_given_to_what_is_known() -> None:
    known = [sample(1.0, accelerator="A100-80GB", ago=k * HOUR) for k in range(1, 12)]
    soon = replace(TRAIN, deadline=NOW + 12 * HOUR)
    assert placed(MACHINES, soon, *known) == "a100-80gb"
    assert placed(MACHINES, TRAIN, *known) != "a100-80gb"
