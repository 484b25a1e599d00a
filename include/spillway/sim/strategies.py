"""The policies to compare with: what people do, and what was published. None of them sees more than ours does.

All of them know which pools could take a job, their room and their marginal prices, and all of them are asked at the same
moments. Where a steady pool costs no more than spot, each takes it: what is owed anyway is free. A job without a deadline
never waits while there is room and stays where it is, with ours too: there is nothing that its wait could be weighed against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Protocol

from spillway.model import Market, Offer, PlannedSlots, TaskSpec
from spillway.placement.recovery import restart_overhead
from spillway.placement.shifting import RoomAhead


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """What the job runs on.

    Attributes:
        offer: What was taken, as it was then.
        restart_left: Restart overhead still to be served.
        at_risk: Work at speed 1 that no checkpoint holds.
        checkpoint_interval: None where no checkpoint is written.
        is_saved_on_notice: Whether the warning time is long enough for a last checkpoint.
    """

    offer: Offer
    restart_left: timedelta
    at_risk: timedelta
    checkpoint_interval: timedelta | None
    is_saved_on_notice: bool

    @property
    def pool(self) -> str:
        """Where it is."""
        return self.offer.pool

    @property
    def is_steady(self) -> bool:
        """Whether the capacity stays."""
        return self.offer.market is not Market.SPOT


@dataclass(frozen=True, kw_only=True)
class Question:
    """One job at one moment: where should it run until the next look?

    Attributes:
        arrived_at: When the job came.
        spec: The task, `work` being what is left of it at speed 1.
        work: What there was at first.
        quote: Makes the offers, when they are wanted.
        foresee: Tells when committed pools are expected to have room until a time, beside what others plan, when that is
            wanted.
    """

    job: str
    now: datetime
    arrived_at: datetime
    spec: TaskSpec
    work: timedelta
    look: timedelta
    quote: Callable[[], tuple[Offer, ...]]
    foresee: Callable[[datetime, Iterable[PlannedSlots]], Sequence[RoomAhead]]
    held: HeldLease | None = None

    @cached_property
    def offers(self) -> tuple[Offer, ...]:
        """What each pool that could take the job asks, with room or without."""
        return self.quote()

    def has_room(self, offer: Offer) -> bool:
        """Whether the offer could be taken now; what is held need not be."""
        return offer.free_slots > 0 or (self.held is not None and self.held.pool == offer.pool)

    def open_offers(self) -> list[Offer]:
        """Return the offers that could be taken now."""
        return [offer for offer in self.offers if self.has_room(offer)]


class Strategy(Protocol):
    """A policy. One object serves one simulation, so it may remember what it saw.

    Attributes:
        name: What the table calls it.
        reconsiders: Whether it wants to be asked about jobs that run; else only about those that hold nothing.
    """

    name: str
    reconsiders: bool

    def answer(self, question: Question) -> str | None:
        """Return the pool to run on until the next look, or None to hold nothing."""
        ...

    def forget(self, job: str) -> None:
        """Drop what was remembered of a job that is complete."""
        ...


class OnDemandOnly:
    """The cheapest on-demand pool with room."""

    name = "on_demand"
    reconsiders = False

    def answer(self, question: Question) -> str | None:
        """Return the cheapest on-demand pool."""
        offers = question.open_offers()
        return cheapest(offer for offer in offers if offer.market is Market.ON_DEMAND)

    def forget(self, job: str) -> None:
        """Nothing is remembered."""


class CheapestPerHour:
    """The lowest marginal price of an hour, whatever the speed of the pool and however often it is taken back."""

    name = "cheapest_per_hour"
    reconsiders = False

    def answer(self, question: Question) -> str | None:
        """Return the cheapest pool by the hour."""
        return cheapest(question.open_offers())

    def forget(self, job: str) -> None:
        """Nothing is remembered."""


class GreedySpot:
    """Spot whenever there is some, else wait; steady capacity once the deadline leaves no choice."""

    name = "greedy_spot"
    reconsiders = True

    def answer(self, question: Question) -> str | None:
        """Return spot, nothing, or at the last moment steady capacity."""
        if question.spec.deadline is None and question.held is not None:
            return question.held.pool
        offers = question.open_offers()
        spot = _of_kind(offers, steady=False)
        steady = _of_kind(offers, steady=True)
        if steady is None or (spot is not None and not _can_checkpoint(question, spot)):
            return _name(spot if steady is None else steady)
        if spot is not None and steady.marginal_usd_per_hour <= spot.marginal_usd_per_hour:
            return _stay_or(question, steady)
        if question.spec.deadline is None:
            return _name(spot or steady)
        return self._forced(question, steady) or self.preferred(question, spot, steady)

    def preferred(self, question: Question, spot: Offer | None, steady: Offer) -> str | None:  # noqa: ARG002
        """Return what to do while the deadline leaves a choice."""
        if steady.marginal_usd_per_hour == 0:
            return steady.pool
        return _name(spot)

    def forget(self, job: str) -> None:
        """Nothing is remembered."""

    def _forced(self, question: Question, steady: Offer) -> str | None:
        """Return where to run when the deadline leaves no choice; None while it does.

        Counted in whole looks: two restarts before the last moment nothing is begun on spot, one before it spot is only
        kept while it is at work.
        """
        left = _looks_left(question)
        held = question.held
        on_spot = held is not None and not held.is_steady
        if _looks_needed(question, steady, restarts=1) >= left:
            at_work = on_spot and held is not None and held.restart_left <= timedelta(0)
            return held.pool if at_work and held is not None else _stay_or(question, steady)
        if _looks_needed(question, steady, restarts=2) >= left and not on_spot:
            return _stay_or(question, steady)
        return None


class UniformProgress(GreedySpot):
    """Progress at or above the line from arrival to deadline: behind it, steady capacity where there is no spot.

    Once on steady capacity, it stays there until spot is there and progress is two restarts ahead of the line.

    Source: Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines", NSDI 2024.
    """

    name = "uniform_progress"

    def preferred(self, question: Question, spot: Offer | None, steady: Offer) -> str | None:
        """Return spot, or by the line steady capacity or nothing."""
        if steady.marginal_usd_per_hour == 0:
            return steady.pool
        deadline = question.spec.deadline
        assert deadline is not None  # or nothing is asked
        rate = question.work / (deadline - question.arrived_at)
        done = question.work - question.spec.work
        passed = question.now - question.arrived_at
        ahead = passed + 2 * restart_overhead(question.spec, steady)
        held = question.held
        if held is not None and held.is_steady and (spot is None or ahead * rate >= done):
            return held.pool
        if spot is not None:
            return spot.pool
        return steady.pool if done < passed * rate else None


def cheapest(offers: Iterable[Offer]) -> str | None:
    """Return the pool of the lowest marginal price; ties go to the lower effective one, then by name."""
    return _name(min(offers, key=_price, default=None))


def _price(offer: Offer) -> tuple[object, ...]:
    return offer.marginal_usd_per_hour, offer.effective_usd_per_hour, offer.pool


def _of_kind(offers: Iterable[Offer], *, steady: bool) -> Offer | None:
    """Return the cheapest offer that stays, or of those that do not."""
    wanted = (offer for offer in offers if (offer.market is not Market.SPOT) is steady)
    return min(wanted, key=_price, default=None)


def _name(offer: Offer | None) -> str | None:
    return None if offer is None else offer.pool


def _stay_or(question: Question, steady: Offer) -> str:
    """Return the steady pool that is held, or else `steady`: a move gains no time."""
    held = question.held
    return held.pool if held is not None and held.is_steady else steady.pool


def _can_checkpoint(question: Question, spot: Offer) -> bool:
    """Whether spot is no trap: work that is saved, or short against the time between preemptions."""
    if question.spec.checkpoints:
        return True
    rate = spot.preemptions_per_hour or 0.0
    return question.spec.work / timedelta(hours=1) / spot.speed * rate <= 1


def _looks_left(question: Question) -> float:
    deadline = question.spec.deadline
    return math.inf if deadline is None else (deadline - question.now) // question.look


def _looks_needed(question: Question, steady: Offer, *, restarts: int) -> int:
    """Return how many looks it takes to finish on `steady` after some restarts."""
    work = question.spec.work / steady.speed
    needed = work + restarts * restart_overhead(question.spec, steady)
    return -(-needed // question.look)
