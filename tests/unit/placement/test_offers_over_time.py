"""What more offers, and other prices, do to the policy over time: an offer never harms, and a price rise never attracts."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from spillway.catalog.value_tables import ValueTables
from spillway.model import Market, Offer, Placement, Resources, TaskSpec, Unplaced
from spillway.model.codec import decode
from spillway.placement.availability_prior import prior
from spillway.placement.over_time import (
    Situation,
    Weighed,
    new_job,
    placed,
    pool_views,
    usable_offers,
    weigh,
)
from spillway.placement.policy import table_spec
from spillway.placement.policy_values import Held, PolicyState
from spillway.placement.value_table import AMONG_OTHERS, TableSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = datetime(2026, 3, 4, 18, tzinfo=UTC)
HOUR = timedelta(hours=1)
TABLES = ValueTables()
# One small table for all, whatever the prices: what is compared is then not how it was rounded.
SPEC = TableSpec(
    look_hours=1 / 60,
    looks_per_step=12,
    work_hours=8.0,
    slack_hours=8.0,
    restart_hours=0.1,
    spot_price=0.33,
    pools=2,
    evictions_per_hour=AMONG_OTHERS,
)
OFFER = Offer(
    pool="on_demand",
    backend="fake",
    market=Market.ON_DEMAND,
    region="local",
    shape=Resources(),
    free_slots=1,
    cooling_down=False,
    marginal_usd_per_hour=Decimal(3),
    effective_usd_per_hour=Decimal(3),
    list_usd_per_hour=Decimal(3),
    price_reason="list price",
    preemptions_per_hour=0.0,
    restart_overhead=timedelta(0),
    grace_period=timedelta(seconds=30),
    speed=1.0,
)
ROUGHLY = 0.005
"""A table is put right only to the first order where another last resort has another price."""
SPOT = replace(OFFER, pool="spot", market=Market.SPOT, preemptions_per_hour=0.2)

# Per hour of work near to what the table was made for; and one that is past all of them.
steady_usd = st.sampled_from([2.8, 3.0, 3.1, 3.6, 100.0])
spot_usd = st.sampled_from([0.9, 1.0, 1.05, 1.1, 2.0])


def at(offer: Offer, usd: float, speed: float, **more: Any) -> Offer:
    price = Decimal(round(usd * speed * 1000)) / 1000
    return replace(offer, marginal_usd_per_hour=price, speed=speed, **more)


steady_offers = st.builds(
    at,
    st.just(OFFER),
    steady_usd,
    st.sampled_from([0.51, 1.0, 1.0, 2.0]),
    free_slots=st.integers(0, 1),
    restart_overhead=st.sampled_from([timedelta(0), timedelta(minutes=5)]),
    ends_at=st.sampled_from([None, None, None, NOW + 2 * HOUR, NOW + 5 * HOUR]),
)
spot_offers = st.builds(
    at, st.just(SPOT), spot_usd, st.sampled_from([0.6, 1.0, 1.5]), free_slots=st.integers(0, 1)
)
worlds = st.builds(
    lambda steady, spots: [
        *(replace(one, pool=f"steady{number}") for number, one in enumerate(steady)),
        *(replace(one, pool=f"spot{number}") for number, one in enumerate(spots)),
        OFFER,
    ],
    st.lists(steady_offers, max_size=2),
    st.lists(spot_offers, min_size=2, max_size=2),
)
tasks = st.builds(
    lambda work, slack: TaskSpec(
        entry_point="package.module:train",
        work=work * HOUR,
        checkpoints=True,
        restart_overhead=timedelta(minutes=6),
        deadline=NOW + (work + slack) * HOUR,
    ),
    st.sampled_from([0.5, 2.0, 6.0]),
    st.sampled_from([0.11, 0.13, 0.3, 1.0, 3.0]),
)


def asked(task: TaskSpec, offers: Sequence[Offer], held: str | None = None) -> Weighed:
    usable = usable_offers(task, offers, NOW, held=held)
    job = replace(new_job(task), held=None if held is None else Held(pool=held))
    views = pool_views(task, usable)
    situation = Situation(job=job, pools=views, now=NOW, state=PolicyState(), spec=SPEC)
    model = prior(SPEC.pools)
    return weigh(situation, table=TABLES.get(SPEC, model), model=model)


def expected_usd(decision: Placement | Unplaced) -> float:
    return decode(decision.weighed, Weighed).decision.options[0].expected_usd


@given(tasks, worlds, steady_offers)
@settings(max_examples=150, deadline=None)
def test_one_more_steady_offer_never_costs_more(
    task: TaskSpec, offers: list[Offer], more: Offer
) -> None:
    with_more = [*offers, replace(more, pool="more")]
    before, after = (placed(task, some, asked(task, some), NOW) for some in (offers, with_more))
    in_time = decode(before.weighed, Weighed).decision.options[0].in_time
    assume(in_time)
    event("placed elsewhere" if _pool(before) != _pool(after) else "as before")
    assert decode(after.weighed, Weighed).decision.options[0].in_time
    assert expected_usd(after) <= expected_usd(before) * (1 + ROUGHLY)


def _pool(decision: Placement | Unplaced) -> str | None:
    return decision.offer.pool if isinstance(decision, Placement) else None


@given(tasks, worlds, st.data())
@settings(max_examples=150, deadline=None)
def test_a_price_rise_never_attracts(
    task: TaskSpec, offers: list[Offer], data: st.DataObject
) -> None:
    held = data.draw(st.sampled_from([None, "on_demand", "spot0"]))
    place = data.draw(st.integers(0, len(offers) - 1))
    rise = data.draw(st.sampled_from([Decimal("0.01"), Decimal("0.3"), Decimal(5)]))
    dearer = list(offers)
    dearer[place] = replace(
        offers[place], marginal_usd_per_hour=offers[place].marginal_usd_per_hour + rise
    )
    before, after = (asked(task, some, held).decision for some in (offers, dearer))
    if after.pool == offers[place].pool:
        event("taken although dearer")
        assert before.pool == after.pool


def test_a_slow_pool_that_is_cheap_by_the_hour_is_not_taken_for_a_cheap_one() -> None:
    # Forty hours at 0.80 $ do what ten at 2 $ do; the table is made for the ten.
    task = TaskSpec(
        entry_point="package.module:train",
        work=10 * HOUR,
        checkpoints=True,
        restart_overhead=timedelta(minutes=6),
        deadline=NOW + 41 * HOUR,
    )
    quick = at(OFFER, 2.0, 1.0)
    slow = at(OFFER, 3.2, 0.25, pool="slow")
    spot = at(SPOT, 0.7, 1.0, free_slots=0)
    for offers in ([quick, spot, slow], [quick, replace(spot, free_slots=1), slow]):
        decision = asked_with_its_own_table(task, offers).decision
        assert decision.pool != "slow"
        assert min(option.expected_usd for option in decision.options) >= 10 * 0.7


def asked_with_its_own_table(task: TaskSpec, offers: Sequence[Offer]) -> Weighed:
    views, job = pool_views(task, usable_offers(task, offers, NOW)), new_job(task)
    spec, model = table_spec(job, views, NOW), prior(1)
    situation = Situation(job=job, pools=views, now=NOW, state=PolicyState(), spec=spec)
    return weigh(situation, table=TABLES.get(spec, model), model=model)


def test_what_a_gang_is_expected_to_cost_is_for_all_its_nodes() -> None:
    one = TaskSpec(
        entry_point="package.module:train",
        work=6 * HOUR,
        checkpoints=True,
        restart_overhead=timedelta(minutes=6),
        deadline=NOW + 9 * HOUR,
    )
    offers = [replace(offer, free_slots=8) for offer in (OFFER, SPOT)]
    alone, gang = (asked(task, offers).decision.options for task in (one, replace(one, nodes=8)))
    assert [option.pool for option in gang] == [option.pool for option in alone]
    for each, of_all in zip(alone, gang, strict=True):
        assert math.isclose(of_all.expected_usd, 8 * each.expected_usd)
