"""The choice: cheapest to complete, whatever the order, with a reason for every offer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spillway.errors import LedgerError
from spillway.model import Market, Offer, Placement, Resources, TaskSpec, Unplaced
from spillway.model.codec import decode, encode
from spillway.placement.again import recompute
from spillway.placement.choose import choose, estimate
from spillway.placement.feasible import refusal
from spillway.testing.strategies import money, offer_sets, offers, tasks

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SMALL = Resources(cpus=0.5, memory_gib=0.5)

# Tasks that most offers can take, so that choosing has something to choose from; due in a while, or never.
easy_tasks = st.builds(
    lambda task: replace(task, resources=SMALL, markets=frozenset(Market), max_usd_per_hour=None),
    tasks(
        deadlines=st.none()
        | st.timedeltas(timedelta(hours=1), timedelta(days=10)).map(lambda left: NOW + left)
    ),
)
any_tasks = st.one_of(easy_tasks, tasks())

with_room = st.builds(replace, offers(), free_slots=st.integers(1, 3), cooling_down=st.just(False))
without_room = st.builds(replace, offers(), free_slots=st.just(0))


def by_brute_force(task: TaskSpec, candidates: Sequence[Offer]) -> Offer | None:
    """Return the offer to take, by comparing every pair: what `choose` must agree with."""
    able = [offer for offer in candidates if refusal(task, offer, NOW) is None]
    for offer in able:
        if all(offer is other or beats(task, offer, other) for other in able):
            return offer
    return None


def beats(task: TaskSpec, one: Offer, two: Offer) -> bool:
    mine, theirs = estimate(task, one), estimate(task, two)
    if task.deadline is not None:
        left = task.deadline - NOW
        if (mine.leased <= left) != (theirs.leased <= left):
            return mine.leased <= left
        if mine.leased > left and mine.leased != theirs.leased:
            return mine.leased < theirs.leased
    if mine.cost_usd != theirs.cost_usd:
        return mine.cost_usd < theirs.cost_usd
    if mine.leased != theirs.leased:
        return mine.leased < theirs.leased
    return one.pool < two.pool


@given(any_tasks, offer_sets())
def test_the_chosen_offer_fits(task: TaskSpec, candidates: list[Offer]) -> None:
    decision = choose(task, candidates, NOW)
    if isinstance(decision, Placement):
        assert refusal(task, decision.offer, NOW) is None
        assert decision.offer.shape.cpus >= task.resources.cpus
        assert decision.offer.shape.memory_gib >= task.resources.memory_gib
        assert decision.offer.market in task.markets
        assert decision.offer.free_slots > 0


@given(any_tasks, offer_sets())
def test_the_choice_is_what_comparing_every_pair_finds(
    task: TaskSpec, candidates: list[Offer]
) -> None:
    decision = choose(task, candidates, NOW)
    taken = decision.offer if isinstance(decision, Placement) else None
    assert taken == by_brute_force(task, candidates)


@given(any_tasks, offer_sets(), st.randoms(use_true_random=False))
def test_the_order_of_offers_is_irrelevant(
    task: TaskSpec, candidates: list[Offer], rng: random.Random
) -> None:
    shuffled = rng.sample(candidates, len(candidates))
    assert choose(task, shuffled, NOW) == choose(task, candidates, NOW)


@given(any_tasks, offer_sets(of=with_room), offers())
def test_one_more_offer_never_costs_more(
    task: TaskSpec, candidates: list[Offer], extra: Offer
) -> None:
    assume(all(offer.pool != extra.pool for offer in candidates))
    before, after = choose(task, candidates, NOW), choose(task, [*candidates, extra], NOW)
    if not isinstance(before, Placement):
        return
    assert isinstance(after, Placement)
    # Being in time comes before the price, so only an offer that ends sooner may cost more than one that is late.
    late = task.deadline is not None and NOW + before.estimate.leased > task.deadline
    assert after.estimate.cost_usd <= before.estimate.cost_usd or (
        late and after.estimate.leased < before.estimate.leased
    )


@given(any_tasks, offer_sets(), st.data(), money())
def test_a_price_rise_never_attracts(
    task: TaskSpec, candidates: list[Offer], data: st.DataObject, rise: Decimal
) -> None:
    assume(candidates)
    raised = data.draw(st.sampled_from(candidates))
    dearer = replace(raised, marginal_usd_per_hour=raised.marginal_usd_per_hour + rise)
    before = choose(task, candidates, NOW)
    after = choose(task, [dearer if o is raised else o for o in candidates], NOW)
    if isinstance(after, Placement) and after.offer.pool == raised.pool:
        assert isinstance(before, Placement)
        assert before.offer.pool == raised.pool


@given(any_tasks, offer_sets())
def test_every_offer_is_taken_or_has_a_reason(task: TaskSpec, candidates: list[Offer]) -> None:
    decision = choose(task, candidates, NOW)
    named = [passed.offer for passed in decision.passed_over]
    if isinstance(decision, Placement):
        named.append(decision.offer)
        assert decision.reason
    assert sorted(o.pool for o in named) == sorted(o.pool for o in candidates)
    assert all(passed.reason for passed in decision.passed_over)


@given(any_tasks, offer_sets(of=without_room))
def test_waiting_can_help_exactly_when_some_pool_lacks_only_room(
    task: TaskSpec, candidates: list[Offer]
) -> None:
    decision = choose(task, candidates, NOW)
    if not isinstance(decision, Unplaced):
        return
    roomy = [
        replace(offer, free_slots=task.nodes, quota_slots=None, cooling_down=False)
        for offer in candidates
    ]
    assert decision.can_wait == isinstance(choose(task, roomy, NOW), Placement)


@given(any_tasks, offer_sets(of=with_room), st.timedeltas(timedelta(hours=1), timedelta(days=10)))
def test_an_offer_expected_in_time_is_preferred_to_any_that_is_not(
    task: TaskSpec, candidates: list[Offer], left: timedelta
) -> None:
    due = replace(task, deadline=NOW + left)
    decision = choose(due, candidates, NOW)
    if not isinstance(decision, Placement):
        return
    if decision.estimate.leased > left:
        assert all(p.estimate is None or p.can_wait or p.estimate.leased > left
                   for p in decision.passed_over)  # fmt: skip


@given(any_tasks, offer_sets())
def test_a_stored_decision_can_be_made_again(task: TaskSpec, candidates: list[Offer]) -> None:
    decision = choose(task, candidates, NOW)
    stored = decode(encode(decision), type(decision))
    assert recompute(stored) == decision


def test_a_decision_stored_without_its_task_says_so(task: TaskSpec, offer: Offer) -> None:
    with pytest.raises(LedgerError, match="without its task"):
        recompute(replace(choose(task, [offer], NOW), task=None))


def test_the_arguments_are_not_stored_with_the_decision(task: TaskSpec, offer: Offer) -> None:
    decision = choose(task, [offer], NOW)
    assert decision.task == replace(task, arguments={})


def test_without_offers_there_is_no_placement(task: TaskSpec) -> None:
    decision = choose(task, [], NOW)
    assert isinstance(decision, Unplaced)
    assert not decision.can_wait


def reasons(decision: Placement | Unplaced) -> dict[str, str]:
    return {passed.offer.pool: passed.reason for passed in decision.passed_over}


def test_a_dearer_offer_says_by_how_much(task: TaskSpec, offer: Offer) -> None:
    dear = replace(offer, pool="dear", marginal_usd_per_hour=Decimal("0.1155"))
    decision = choose(task, [dear, offer], NOW)
    assert reasons(decision) == {"dear": "costs $0.0310 more: $0.1155/h for 2.0 h"}


def test_a_cheap_hour_that_takes_more_of_them_is_passed_over(task: TaskSpec, offer: Offer) -> None:
    spot = replace(offer, pool="spot", market=Market.SPOT, preemptions_per_hour=4.0,
                   restart_overhead=timedelta(minutes=20),
                   marginal_usd_per_hour=Decimal("0.06"))  # fmt: skip
    decision = choose(task, [spot, offer], NOW)
    assert isinstance(decision, Placement)
    assert decision.offer.pool == "on_demand"
    assert "$0.0600/h for" in reasons(decision)["spot"]


def test_a_committed_slot_wins_and_the_quicker_of_two(task: TaskSpec, offer: Offer) -> None:
    free = replace(offer, pool="reserved", marginal_usd_per_hour=Decimal(0))
    slow = replace(free, pool="a_slow", speed=0.5)
    decision = choose(task, [offer, slow, free], NOW)
    assert isinstance(decision, Placement)
    assert decision.offer.pool == "reserved"
    assert reasons(decision)["a_slow"] == "costs the same and takes 2.0 h longer"


def test_of_equal_offers_the_name_that_sorts_first_wins(task: TaskSpec, offer: Offer) -> None:
    decision = choose(task, [replace(offer, pool="b"), replace(offer, pool="a")], NOW)
    assert isinstance(decision, Placement)
    assert decision.offer.pool == "a"
    assert reasons(decision) == {"b": "as cheap and as fast; a sorts first"}


def test_a_deadline_is_worth_more_than_the_price(task: TaskSpec, offer: Offer) -> None:
    cheap = replace(offer, pool="spot", marginal_usd_per_hour=Decimal("0.01"),
                    preemptions_per_hour=0.5, restart_overhead=timedelta(minutes=5))  # fmt: skip
    due = replace(task, deadline=NOW + timedelta(hours=2, minutes=6))
    assert isinstance(decision := choose(due, [cheap, offer], NOW), Placement)
    assert decision.offer.pool == "on_demand"
    assert "past the deadline" in reasons(decision)["spot"]


def test_where_all_are_late_the_soonest_is_taken(task: TaskSpec, offer: Offer) -> None:
    shaky = replace(offer, preemptions_per_hour=0.5, restart_overhead=timedelta(minutes=5))
    worse = replace(shaky, pool="a", preemptions_per_hour=1.0, marginal_usd_per_hour=Decimal(0))
    due = replace(task, deadline=NOW + timedelta(hours=2, minutes=6))
    assert isinstance(decision := choose(due, [worse, shaky], NOW), Placement)
    assert decision.offer.pool == "on_demand"
    assert "past the deadline, the least of all" in decision.reason


def test_a_full_pool_shows_what_it_would_have_cost(task: TaskSpec, offer: Offer) -> None:
    full = replace(offer, pool="full", free_slots=0, marginal_usd_per_hour=Decimal("0.04"))
    decision = choose(task, [full, offer], NOW)
    (passed,) = decision.passed_over
    assert passed.reason == "has no free slot"
    assert passed.estimate is not None
    assert passed.estimate.cost_usd == Decimal("0.08")
