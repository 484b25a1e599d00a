"""The choice itself: filter the offers, price what is left, pick one, and say why for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from spillway.model import Estimate, Offer, PassedOver, Placement, TaskSpec, Unplaced
from spillway.model.placement import ResidencyEvidence
from spillway.placement.estimate import estimate
from spillway.placement.explain import span, usd
from spillway.placement.feasible import Refusal, end_of, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """An offer that can take the task on its `nodes`, priced; `late` is how far past the deadline it is expected to end."""

    offer: Offer
    estimate: Estimate
    late: timedelta
    nodes: int


def choose(task: TaskSpec, offers: Iterable[Offer], now: datetime) -> Placement | Unplaced:
    """Return the cheapest placement of `task` expected to make its deadline, or every reason there is none.

    Where no offer is expected to make the deadline but some could, the one expected to end first is taken. Ties go to
    the shorter expected lease, then the lower effective price, then the pool whose name sorts first, so equal offers
    in any order give equal answers.
    """
    able, refused = _filter(task, offers, now)
    memo = replace(task, arguments={})
    if not able:
        return Unplaced(passed_over=refused, task=memo, decided_at=now)
    ranked = _rank(_price(task, offer, now) for offer in able)
    best, others = ranked[0], ranked[1:]
    return Placement(
        offer=best.offer,
        estimate=best.estimate,
        reason=_why(best, others, now),
        passed_over=(*(_passed_over(other, best) for other in others), *refused),
        task=memo,
        decided_at=now,
        residency=residency_evidence(task, best.offer),
    )


def pass_over(task: TaskSpec, offer: Offer, taken: Offer | None, now: datetime) -> PassedOver:
    """Return why `offer` is passed over for `taken`, the choice among all; None where there was none."""
    no = refusal(task, offer, now)
    if no is not None:
        return _refused(task, offer, no)
    assert taken is not None  # or `offer` would have been taken
    return _passed_over(_price(task, offer, now), _price(task, taken, now))


def residency_evidence(task: TaskSpec, offer: Offer) -> ResidencyEvidence | None:
    """Return what shows that `task` stays where it may be on `offer`; None where it asked for no residency."""
    if not task.residency:
        return None
    assert offer.jurisdiction is not None and offer.store_jurisdiction is not None  # noqa: PT018 - the filter saw to it
    return ResidencyEvidence(
        allowed=task.residency,
        region=offer.region,
        runs_in=offer.jurisdiction,
        stores_in=offer.store_jurisdiction,
    )


def _filter(
    task: TaskSpec, offers: Iterable[Offer], now: datetime
) -> tuple[list[Offer], tuple[PassedOver, ...]]:
    able: list[Offer] = []
    refused: list[PassedOver] = []
    for offer in sorted(offers, key=lambda offer: offer.pool):
        no = refusal(task, offer, now)
        if no is None:
            able.append(offer)
        else:
            refused.append(_refused(task, offer, no))
    return able, tuple(refused)


def _refused(task: TaskSpec, offer: Offer, no: Refusal) -> PassedOver:
    # A pool that only lacks room is priced all the same: the table then shows what waiting could save.
    priced = estimate(task, offer) if no.can_wait else None
    return PassedOver(offer=offer, reason=no.reason, can_wait=no.can_wait, estimate=priced)


def _price(task: TaskSpec, offer: Offer, now: datetime) -> _Candidate:
    priced = estimate(task, offer)
    late = timedelta(0)
    if task.deadline is not None:
        late = max(priced.leased - (task.deadline - now), late)
    return _Candidate(offer=offer, estimate=priced, late=late, nodes=task.nodes)


def _rank(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Return the candidates best first: those in time by cost, then those that are late by lateness."""
    return sorted(candidates, key=_order)


def _order(candidate: _Candidate) -> tuple[timedelta, Decimal, timedelta, Decimal, str]:
    priced, offer = candidate.estimate, candidate.offer
    # Of two that add nothing to the bill, the cheaper commitment: the dearer one may be worth keeping for other work.
    return candidate.late, priced.cost_usd, priced.leased, offer.effective_usd_per_hour, offer.pool


def _why(best: _Candidate, others: Sequence[_Candidate], now: datetime) -> str:
    total = f"{usd(best.estimate.cost_usd)} for {span(best.estimate.leased)}"
    if best.late:
        return f"expected {span(best.late)} past the deadline, the least of all: {total}"
    what = "lowest expected cost" if others else "the only pool that can take it"
    priced_at = best.offer.priced_at
    dated = f", as of {priced_at:%Y-%m-%d}" if priced_at is not None else ""
    # A configured end is part of the price's reason.
    end = f"; it {end_of(best.offer, now)}" if best.offer.end_said_at is not None else ""
    return f"{what}: {total} ({best.offer.price_reason}{dated}{end})"


def _asked(candidate: _Candidate) -> str:
    """Return what an hour costs, and for how many nodes where there are several."""
    each = usd(candidate.offer.marginal_usd_per_hour)
    return each if candidate.nodes == 1 else f"{candidate.nodes} nodes at {each}"


def _passed_over(other: _Candidate, best: _Candidate) -> PassedOver:
    return PassedOver(offer=other.offer, reason=_why_not(other, best), estimate=other.estimate)


def _why_not(other: _Candidate, best: _Candidate) -> str:
    """Say in words which part of the order put `other` behind `best`."""
    mine, taken = other.estimate, best.estimate
    if other.late > best.late:
        return f"expected {span(other.late)} past the deadline"
    dearer, longer = mine.cost_usd - taken.cost_usd, mine.leased - taken.leased
    if dearer > 0:
        return f"costs {usd(dearer)} more: {_asked(other)}/h for {span(mine.leased)}"
    if longer > timedelta(0):
        return f"costs the same and takes {span(longer)} longer"
    effective = other.offer.effective_usd_per_hour
    if effective > best.offer.effective_usd_per_hour:
        return f"adds as little and is as fast, but is the dearer commitment: {usd(effective)}/h effective"
    return f"as cheap and as fast; {best.offer.pool} sorts first"
