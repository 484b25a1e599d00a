"""A whole queue at once: who goes where when the cheap slots do not do for everybody.

One after the other, each task takes what is best for itself, and the last ones pay for it. Together, a scarce slot goes to the
task that would pay most for not having it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from spillway.model import Offer, Placement, TaskSpec, Unplaced
from spillway.placement.assign import NOBODY, assign, slots_used
from spillway.placement.choose import choose
from spillway.placement.estimate import estimate
from spillway.placement.feasible import refusal
from spillway.placement.fits import Fits, fits_alike
from spillway.placement.table_choice import TableChoice, choose_from, room_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from spillway.placement.offer_table import OfferTable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where each task of a queue goes, in the order of the queue."""

    decisions: tuple[Placement | Unplaced, ...]

    @property
    def cost_usd(self) -> Decimal:
        """What all that are placed are expected to add to the bill."""
        placed = (one for one in self.decisions if isinstance(one, Placement))
        return sum((one.estimate.cost_usd for one in placed), Decimal(0))

    @property
    def late(self) -> timedelta:
        """How far past their deadlines all that are placed are expected to end, together."""
        placed = (one for one in self.decisions if isinstance(one, Placement))
        return sum((_late(one) for one in placed), timedelta(0))

    @property
    def placed(self) -> int:
        """How many tasks go somewhere."""
        return sum(isinstance(one, Placement) for one in self.decisions)


def plan(tasks: Sequence[TaskSpec], offers: Iterable[Offer], now: datetime) -> Plan:
    """Return where the tasks go together: the most of them, the least late, for the least money, in this order.

    Each decision is what `choose` takes of the room that all others leave, so it explains itself and can be made again as
    any other. The offers hold for every task: what of a commitment one task uses up does not make it dearer for the next.
    """
    listed = sorted(offers, key=lambda offer: offer.pool)
    taken = _together([(task, listed) for task in tasks], now)
    return Plan(decisions=tuple(_explained(tasks, listed, taken, now)))


def left_beside(
    asked: Sequence[tuple[TaskSpec, Sequence[Offer]]], one: int, now: datetime
) -> tuple[Offer, ...]:
    """Return the offers to task `one` of a queue with the room that the others leave it.

    Whoever comes first in the queue goes first, as far as there is room: the others that go now are the longest line of
    which all can. Of the ways to place all of them together, `one` included if it is among them, the one counts that
    loses the least time past deadlines, then the least money. As long as the queue is the same and in the same order, each
    task is told of the same plan, so that no two leave a slot to each other.

    Args:
        asked: Each task with what the pools would rent to it, the same pools for all.
        one: Which of the tasks is asking.
        now: The moment of asking.
    """
    listed = [(task, sorted(offers, key=lambda offer: offer.pool)) for task, offers in asked]
    going: list[int] = []
    taken: list[int] = []
    for number in range(len(listed)):
        together = _together([listed[each] for each in (*going, number)], now)
        if NOBODY not in together:
            going, taken = [*going, number], together
    tasks, offers = [listed[each][0] for each in going], listed[one][1]
    used = slots_used(taken, _sizes(tasks), offers=len(offers))
    if one in going:
        used[taken[going.index(one)]] -= asked[one][0].nodes
    return tuple(
        replace(_with_less_room(offer, int(n)), left_to_others=int(n))
        for offer, n in zip(offers, used, strict=True)
    )


def _together(asked: Sequence[tuple[TaskSpec, Sequence[Offer]]], now: datetime) -> list[int]:
    """Return which of its offers each task takes, or `NOBODY`; the offers of all are of the same pools in the same order."""
    offers = asked[0][1] if asked else ()
    cost = np.full((len(asked), len(offers)), np.inf)
    late = np.zeros_like(cost)
    for i, (task, quoted) in enumerate(asked):
        for j, offer in enumerate(quoted):
            if refusal(task, offer, now) is None:
                expected = estimate(task, offer)
                cost[i, j] = float(expected.cost_usd)
                late[i, j] = _seconds_late(task, expected.leased, now)
    room = np.array([room_of(offer) for offer in offers], dtype=np.int64)
    return assign(cost, late, room, _sizes([task for task, _ in asked]))


def plan_from(
    table: OfferTable, tasks: Sequence[TaskSpec], now: datetime
) -> tuple[TableChoice, ...]:
    """Return where the tasks go together, of all the offers in a table; reasons are made when they are asked for.

    Each task needs to look at few rows only: those that all others together could fill, and one more.
    """
    known: dict[object, Fits] = {}

    def fits_of(task: TaskSpec) -> Fits:
        kind = fits_alike(task)
        if kind not in known:
            known[kind] = Fits(table, task, now)
        return known[kind]

    count = _rows_enough(tasks, table.least_room)
    if count <= 1:
        alone = _each_alike(tasks, lambda task: choose_from(table, task, now, fits=fits_of(task)))
        return tuple(replace(one, task=task) for one, task in zip(alone, tasks, strict=True))
    found = _each_alike(tasks, lambda task: table.best(task, now, count=count, fits=fits_of(task)))
    rows = sorted({one.row for each in found for one in each})
    place = {row: column for column, row in enumerate(rows)}
    cost = np.full((len(tasks), len(rows)), np.inf)
    late = np.zeros_like(cost)
    for i, each in enumerate(found):
        for one in each:
            cost[i, place[one.row]] = one.cost_usd
            late[i, place[one.row]] = one.late_us / 1e6
    taken = assign(cost, late, table.room_at(rows), _sizes(tasks))
    return tuple(
        _chosen(table, task, None if column == NOBODY else rows[column], now)
        for task, column in zip(tasks, taken, strict=True)
    )


def _rows_enough(tasks: Sequence[TaskSpec], least_room: int) -> int:
    """Return how many of its best rows are enough for each task to look at.

    A row of `r` slots is closed to a gang of `n` once the others take `r - n + 1` of them.
    """
    total = sum(task.nodes for task in tasks)
    return 1 + max(
        ((total - task.nodes) // max(least_room - task.nodes + 1, 1) for task in tasks), default=-1
    )


def _sizes(tasks: Sequence[TaskSpec]) -> NDArray[np.int64]:
    return np.array([task.nodes for task in tasks], dtype=np.int64)


def _each_alike(tasks: Sequence[TaskSpec], ask: Callable[[TaskSpec], T]) -> list[T]:
    """Return the answer for each task; tasks that are alike, as the trials of a sweep are, are asked for once."""
    asked: list[tuple[TaskSpec, T]] = []
    answers: list[T] = []
    for task in tasks:
        bare = replace(task, arguments={})
        known = [answer for one, answer in asked if one == bare]
        if not known:
            known = [ask(task)]
            asked.append((bare, known[0]))
        answers.append(known[0])
    return answers


def _chosen(table: OfferTable, task: TaskSpec, row: int | None, now: datetime) -> TableChoice:
    offers = [] if row is None else [table.source.offer(row)]
    return TableChoice(task=task, table=table, now=now, row=row, decision=choose(task, offers, now))


def _explained(
    tasks: Sequence[TaskSpec], offers: Sequence[Offer], taken: list[int], now: datetime
) -> list[Placement | Unplaced]:
    """Return each decision as the choice of the room the others leave, which also settles what costs the same."""
    place = {offer.pool: column for column, offer in enumerate(offers)}
    used = slots_used(taken, _sizes(tasks), offers=len(offers))
    decisions: list[Placement | Unplaced] = []
    for task, column in zip(tasks, taken, strict=True):
        if column != NOBODY:
            used[column] -= task.nodes
        left = [_with_less_room(offer, int(n)) for offer, n in zip(offers, used, strict=True)]
        decision = choose(task, left, now)
        if isinstance(decision, Placement):
            used[place[decision.offer.pool]] += task.nodes
        decisions.append(decision)
    return decisions


def _with_less_room(offer: Offer, used: int) -> Offer:
    if not used:
        return offer
    quota = None if offer.quota_slots is None else offer.quota_slots - used
    return replace(offer, free_slots=offer.free_slots - used, quota_slots=quota)


def _seconds_late(task: TaskSpec, leased: timedelta, now: datetime) -> float:
    if task.deadline is None:
        return 0.0
    return max((leased - (task.deadline - now)).total_seconds(), 0.0)


def _late(placement: Placement) -> timedelta:
    task, decided_at = placement.task, placement.decided_at
    assert task is not None
    assert decided_at is not None
    return timedelta(seconds=_seconds_late(task, placement.estimate.leased, decided_at))
