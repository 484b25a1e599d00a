"""Sets of jobs over mixed commitments, against every other mix and a bill written apart."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.model import (
    CapacityBlock,
    Commitment,
    HourlyCommitment,
    Market,
    MonthlyMinimum,
    Pool,
    PoolUsage,
    PrepaidHours,
    Resources,
)
from spillway.placement.mix import PoolRoom, cheapest_mix

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 3, 2, tzinfo=UTC)
LATER = NOW + timedelta(days=20)
CENT = Decimal("0.01")

cents = st.integers(0, 300).map(lambda number: number * CENT)
few_hours = st.integers(0, 40).map(Decimal)


def a_pool(name: str, *, listed: Decimal, commitment: Commitment | None) -> Pool:
    return Pool(
        name=name,
        backend="local",
        market=Market.ON_DEMAND if commitment is None else Market.PARTNER,
        slots=9,
        shape=Resources(),
        list_usd_per_hour=listed,
        commitment=commitment,
    )


commitments = st.one_of(
    st.none(),
    st.builds(HourlyCommitment, usd_per_slot_hour=cents),
    st.builds(
        MonthlyMinimum,
        slot_hours=few_hours,
        usd_per_slot_hour=cents,
        overage_usd_per_slot_hour=cents,
        variable_usd_per_slot_hour=cents,
    ),
    st.builds(
        PrepaidHours,
        slot_hours=few_hours,
        usd_per_slot_hour=cents,
        overage_usd_per_slot_hour=cents,
        starts_at=st.just(NOW),
        ends_at=st.just(LATER),
    ),
    st.builds(
        CapacityBlock,
        usd_per_slot_hour=cents,
        starts_at=st.just(NOW),
        ends_at=st.integers(1, 20).map(lambda hours: NOW + timedelta(hours=hours)),
    ),
)


@st.composite
def rooms(draw: st.DrawFn) -> list[PoolRoom]:
    count = draw(st.integers(1, 3))
    return [
        PoolRoom(
            pool=a_pool(f"pool_{at}", listed=draw(cents), commitment=draw(commitments)),
            usage=PoolUsage(
                month_slot_hours=(used := draw(few_hours)),
                period_slot_hours=used,
                forecast_slot_hours=draw(few_hours),
            ),
            room=draw(st.integers(0, 4)),
        )
        for at in range(count)
    ]


def oracle_bill(rooms: Sequence[PoolRoom], leases: Sequence[tuple[str | None, int]]) -> Fraction:
    """Return all invoices of the period, committed money included, from the hours each pool was used in all."""
    return sum(
        (_invoice(room, [h for name, h in leases if name == room.pool.name]) for room in rooms),
        Fraction(0),
    )


def _invoice(room: PoolRoom, hours: list[int]) -> Fraction:
    used = Fraction(room.usage.month_slot_hours) + Fraction(room.usage.forecast_slot_hours)
    total, listed = used + sum(hours), Fraction(room.pool.list_usd_per_hour)
    match room.pool.commitment:
        case None:
            return listed * sum(hours)
        case HourlyCommitment():
            return Fraction(0)  # the same whatever runs
        case MonthlyMinimum() as owed:
            past = max(total - Fraction(owed.slot_hours), Fraction(0))
            paid = Fraction(owed.slot_hours) * Fraction(owed.usd_per_slot_hour)
            paid += past * Fraction(owed.overage_usd_per_slot_hour)
            return paid + total * Fraction(owed.variable_usd_per_slot_hour)
        case PrepaidHours() as owed:
            past = max(total - Fraction(owed.slot_hours), Fraction(0))
            paid = Fraction(owed.slot_hours) * Fraction(owed.usd_per_slot_hour)
            return paid + past * Fraction(owed.overage_usd_per_slot_hour)
        case CapacityBlock() as owed:
            until_end = (owed.ends_at - NOW) / timedelta(hours=1)
            return listed * sum((Fraction(max(h - until_end, 0)) for h in hours), Fraction(0))


def fits(
    rooms: Sequence[PoolRoom], names: Sequence[str | None], nodes: Sequence[int] = (1, 1, 1, 1, 1)
) -> bool:
    taken = [name for name, count in zip(names, nodes, strict=False) for _ in range(count)]
    return all(taken.count(room.pool.name) <= room.room for room in rooms)


def slot_leases(
    names: Sequence[str | None], lengths: Sequence[int], nodes: Sequence[int]
) -> list[tuple[str | None, int]]:
    """Return a lease for each slot of each job, which is what the invoices are for."""
    return [
        (name, length)
        for name, length, count in zip(names, lengths, nodes, strict=True)
        for _ in range(count)
    ]


@settings(max_examples=60)
@given(rooms(), st.lists(st.integers(1, 24), min_size=1, max_size=5))
def test_a_set_of_jobs_costs_what_the_best_of_all_mixes_costs(
    rooms: list[PoolRoom], lengths: list[int]
) -> None:
    jobs = [{room.pool.name: timedelta(hours=length) for room in rooms} for length in lengths]
    mix = cheapest_mix(jobs, rooms, NOW)

    def bill(names: Sequence[str | None]) -> tuple[int, Fraction]:
        return names.count(None), oracle_bill(rooms, list(zip(names, lengths, strict=True)))

    every = itertools.product([None, *(room.pool.name for room in rooms)], repeat=len(jobs))
    best = min(bill(names) for names in every if fits(rooms, names))
    ours = bill(mix.pools)
    assert mix.is_proven
    assert fits(rooms, mix.pools)
    assert ours[0] == best[0]
    assert float(ours[1]) == pytest.approx(float(best[1]), abs=1e-3)
    before = oracle_bill(rooms, [])
    assert float(mix.added_usd) == pytest.approx(float(ours[1] - before), abs=1e-3)


@settings(max_examples=60)
@given(rooms(), st.lists(st.tuples(st.integers(1, 24), st.integers(1, 3)), min_size=1, max_size=4))
def test_gangs_cost_what_the_best_of_all_mixes_costs(
    rooms: list[PoolRoom], gangs: list[tuple[int, int]]
) -> None:
    lengths, nodes = zip(*gangs, strict=True)
    jobs = [{room.pool.name: timedelta(hours=length) for room in rooms} for length in lengths]
    mix = cheapest_mix(jobs, rooms, NOW, nodes=nodes)

    def bill(names: Sequence[str | None]) -> tuple[int, Fraction]:
        return names.count(None), oracle_bill(rooms, slot_leases(names, lengths, nodes))

    every = itertools.product([None, *(room.pool.name for room in rooms)], repeat=len(jobs))
    best = min(bill(names) for names in every if fits(rooms, names, nodes))
    ours = bill(mix.pools)
    assert mix.is_proven
    assert fits(rooms, mix.pools, nodes)
    assert ours[0] == best[0]
    assert float(ours[1]) == pytest.approx(float(best[1]), abs=1e-3)


def contract(slot_hours: int) -> PoolRoom:
    owed = MonthlyMinimum(
        slot_hours=Decimal(slot_hours),
        usd_per_slot_hour=Decimal(1),
        overage_usd_per_slot_hour=Decimal(3),
    )
    return PoolRoom(
        pool=a_pool("contract", listed=Decimal(3), commitment=owed), usage=PoolUsage(), room=9
    )


ON_DEMAND = PoolRoom(
    pool=a_pool("on_demand", listed=Decimal(2), commitment=None), usage=PoolUsage(), room=9
)


def test_what_job_by_job_would_waste_is_found() -> None:
    """The first job takes six of ten free hours; the other two would have filled all ten."""
    jobs = [{"contract": timedelta(hours=h), "on_demand": timedelta(hours=h)} for h in (6, 5, 5)]
    mix = cheapest_mix(jobs, [contract(10), ON_DEMAND], NOW)
    assert mix.pools == ("on_demand", "contract", "contract")
    assert mix.added_usd == 12


def test_a_search_that_is_cut_short_says_so_and_still_places_every_job() -> None:
    jobs = [{"contract": timedelta(hours=h), "on_demand": timedelta(hours=h)} for h in (6, 5, 5)]
    mix = cheapest_mix(jobs, [contract(10), ON_DEMAND], NOW, effort=1)
    assert not mix.is_proven
    assert None not in mix.pools
    assert mix.added_usd >= 12


def test_a_job_that_fits_nowhere_keeps_no_other_from_its_place() -> None:
    mix = cheapest_mix([{}, {"on_demand": timedelta(hours=1)}], [ON_DEMAND], NOW)
    assert mix.pools == (None, "on_demand")
    assert mix.is_proven


def test_no_jobs_cost_nothing() -> None:
    assert cheapest_mix([], [ON_DEMAND], NOW).added_usd == 0
