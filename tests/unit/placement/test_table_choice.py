"""The choice from columns is the choice from offers, whatever the task asks for; its reasons are made when asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.model import Market, Offer, Placement, Resources, TaskSpec, Unplaced
from spillway.placement import fits, offer_table
from spillway.placement.again import recompute
from spillway.placement.choose import choose
from spillway.placement.table_choice import choose_from, table_of
from spillway.testing.strategies import offer_sets, offers, resources, tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
REGIONS = ["europe-north1", "europe-west4", "us-east1"]
PROVIDERS = ["aws", "gcp"]
PLACES = ["CH", "EU", "US"]


def some(names: Sequence[str]) -> st.SearchStrategy[frozenset[str]]:
    """Return no names, mostly, or a few."""
    return st.just(frozenset()) | st.frozensets(st.sampled_from(names), min_size=1)


def recent(days: int) -> st.SearchStrategy[datetime | None]:
    return st.none() | st.integers(0, days).map(lambda ago: NOW - timedelta(days=ago))


# Few different prices and classes, so that there are ties in everything.
usd = st.sampled_from([Decimal(0), Decimal("0.1"), Decimal("0.100001"), Decimal(3), Decimal(77)])
rich_offers = st.builds(
    replace,
    offers(),
    region=st.sampled_from(REGIONS),
    provider=st.none() | st.sampled_from(PROVIDERS),
    architecture=st.sampled_from([None, "amd64", "arm64"]),
    jurisdiction=st.sampled_from([None, *PLACES]),
    store_jurisdiction=st.sampled_from([None, *PLACES]),
    free_slots=st.integers(0, 3),
    quota_slots=st.sampled_from([None, None, 0, 3]),
    slots=st.sampled_from([None, None, 1, 2]),
    cooling_down=st.sampled_from([False, False, True]),
    price_doubts=st.sampled_from([(), (), ("it is odd",)]),
    priced_at=recent(70),
    last_launch_at=recent(10),
    marginal_usd_per_hour=usd,
    effective_usd_per_hour=usd,
    preemptions_per_hour=st.sampled_from([None, 0.0, 0.2, 5.0]),
    restart_overhead=st.sampled_from([timedelta(0), timedelta(minutes=5)]),
    speed=st.sampled_from([0.5, 1.0]),
    ends_at=st.sampled_from([None, None, NOW, NOW + timedelta(hours=9)]),
)
plain_offers = st.builds(
    replace,
    rich_offers,
    quota_slots=st.none(),
    free_slots=st.just(1),
    cooling_down=st.just(False),
    price_doubts=st.just(()),
    priced_at=st.none(),
    shape=st.just(Resources(cpus=8, memory_gib=8)),
)
any_offers = rich_offers | plain_offers | plain_offers


def numbered(drawn: list[Offer]) -> list[Offer]:
    """Return the offers with names of their own, in another order than they come in."""
    return [replace(offer, pool=f"p{n * 7 % 13:02}") for n, offer in enumerate(drawn)]


candidate_lists = st.lists(any_offers, min_size=2, max_size=10).map(numbered) | offer_sets(
    of=any_offers
)

rich_tasks = st.builds(
    replace,
    tasks(),
    deadline=st.none()
    | st.timedeltas(timedelta(hours=1), timedelta(days=3)).map(lambda left: NOW + left),
    regions=st.sampled_from([frozenset[str](), frozenset({"europe-*"}), frozenset({"us-east1"})]),
    residency=some(PLACES),
    providers=some(PROVIDERS),
    architectures=some(["amd64", "arm64"]),
    max_cost_usd=st.none() | usd | st.sampled_from([Decimal("1.2"), Decimal(90)]),
    spent_usd=st.just(Decimal(0)) | usd,
    max_usd_per_hour=st.none() | usd,
    alternatives=st.lists(resources(), max_size=2).map(tuple),
)
easy_tasks = st.builds(
    lambda task, checkpoints: replace(
        task,
        work=task.work / 20,
        max_cost_usd=None if checkpoints else task.max_cost_usd,
        resources=Resources(cpus=0.5, memory_gib=0.5),
        markets=frozenset(Market),
        regions=frozenset(),
        residency=frozenset(),
        providers=frozenset(),
        architectures=frozenset(),
        max_usd_per_hour=None,
        checkpoints=checkpoints,
    ),
    rich_tasks,
    st.sampled_from([True, True, False]),
)
any_tasks = easy_tasks | easy_tasks | rich_tasks


@settings(max_examples=100)
@given(any_tasks, candidate_lists)
def test_columns_choose_what_choose_does(task: TaskSpec, candidates: list[Offer]) -> None:
    expected = choose(task, candidates, NOW)
    chosen = choose_from(table_of(candidates), task, NOW)
    if isinstance(expected, Placement):
        assert chosen.offer == expected.offer
        assert isinstance(chosen.decision, Placement)
        assert chosen.decision.estimate == expected.estimate
    else:
        assert chosen.offer is None
        assert chosen.can_wait == expected.can_wait
    assert chosen.to_decision() == expected


@given(any_tasks, candidate_lists, st.integers(1, 4), st.integers(1, 4))
def test_rows_are_found_however_few_are_looked_at_together(
    task: TaskSpec, candidates: list[Offer], chunk: int, block: int
) -> None:
    with (
        patch.multiple(fits, CHUNK=chunk, _FIRST_BLOCK=block),
        patch.object(offer_table, "CHUNK", chunk),
    ):
        chosen = choose_from(table_of(candidates), task, NOW)
    assert chosen.offer == choose_from(table_of(candidates), task, NOW).offer


@given(any_tasks, candidate_lists)
def test_the_reasons_made_on_demand_are_those_that_choose_gives(
    task: TaskSpec, candidates: list[Offer]
) -> None:
    expected = {p.offer.pool: p for p in choose(task, candidates, NOW).passed_over}
    chosen = choose_from(table_of(candidates), task, NOW)
    assert len(chosen.passed_over) == len(expected)
    assert {p.offer.pool: p for p in chosen.passed_over} == expected


@given(any_tasks, candidate_lists, st.integers(0, 4))
def test_a_record_names_the_same_choice_and_can_be_made_again(
    task: TaskSpec, candidates: list[Offer], others: int
) -> None:
    chosen = choose_from(table_of(candidates), task, NOW)
    record = chosen.to_record(others=others)
    assert recompute(record) == record
    assert isinstance(record, Placement) == (chosen.offer is not None)
    if isinstance(record, Placement):
        assert record.offer == chosen.offer
    else:
        assert record.can_wait == chosen.can_wait


@given(any_tasks, candidate_lists, st.integers(1, 5))
def test_the_best_rows_are_those_that_choosing_again_and_again_finds(
    task: TaskSpec, candidates: list[Offer], count: int
) -> None:
    costs, left = [], list(candidates)
    while len(costs) < count:
        decision = choose(task, left, NOW)
        if isinstance(decision, Unplaced):
            break
        costs.append(float(decision.estimate.cost_usd))
        left.remove(decision.offer)
    table = table_of(candidates)
    found = sorted(table.best(task, NOW, count=count), key=lambda one: (one.late_us, one.cost_usd))
    refunded = [one.cost_usd for one in found[: len(costs)]]
    assert refunded == pytest.approx(costs, abs=1e-5)


def test_a_long_class_is_searched_past_its_first_block(task: TaskSpec, offer: Offer) -> None:
    small = [
        replace(
            offer,
            pool=f"small_{n:05}",
            shape=Resources(cpus=1, memory_gib=8),
            marginal_usd_per_hour=Decimal("0.01"),
        )
        for n in range(3000)
    ]
    chosen = choose_from(table_of([*small, offer]), task, NOW)
    assert chosen.offer == offer
    assert chosen.row == 3000
    assert chosen.passed_over[5].reason == "has 1 CPUs of 2 needed"
    assert [p.offer.pool for p in chosen.passed_over[:2]] == ["small_00000", "small_00001"]


def test_of_many_rows_at_one_price_the_name_that_sorts_first_is_taken(
    task: TaskSpec, offer: Offer
) -> None:
    same = [replace(offer, pool=f"p{n}") for n in range(200, 100, -1)]
    assert choose_from(table_of(same), task, NOW).offer == replace(offer, pool="p101")


def test_an_empty_table_has_no_choice(task: TaskSpec) -> None:
    chosen = choose_from(table_of([]), task, NOW)
    assert chosen.offer is None
    assert len(chosen.passed_over) == 0
    assert not chosen.can_wait
