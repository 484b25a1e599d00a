"""The decision to take an offer, with the reasons for it and against the others."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from pydantic import JsonValue

from spillway.model.offer import Offer
from spillway.model.task import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What completing the task on one offer is expected to take.

    Attributes:
        leased: Expected leased time, preemptions and restarts included.
        cost_usd: Expected addition to the bill, for all nodes.
        checkpoint_interval: Time between checkpoints; None when the task writes none.
        transfer_usd: The part of `cost_usd` that is egress and storage.
    """

    leased: timedelta
    cost_usd: Decimal
    checkpoint_interval: timedelta | None
    transfer_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """An offer that was not taken.

    Attributes:
        can_wait: Whether the reason is a lack of room now, which time may cure.
        estimate: What it would have taken, when it was priced at all.
    """

    offer: Offer
    reason: str
    can_wait: bool = False
    estimate: Estimate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyEvidence:
    """What shows that a task stayed where it may be: a row for whoever has to prove it.

    Attributes:
        allowed: The jurisdictions that the task allowed.
        runs_in: Whose law the machines are under.
        stores_in: Whose law its checkpoints and outputs are under.
    """

    allowed: frozenset[str]
    region: str
    runs_in: str
    stores_in: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The offer taken, why, and every other with why not.

    Attributes:
        task: What was placed, without its arguments; with `decided_at` and the offers, all that the decision was made of.
        residency: What shows that the task's residency is kept; None where it asked for none.
        weighed: What the policy over time was given and answered, as `placement.over_time.Weighed` in JSON; None where the
            expected cost alone decided.
    """

    offer: Offer
    estimate: Estimate
    reason: str
    passed_over: tuple[PassedOver, ...] = ()
    task: TaskSpec | None = None
    decided_at: datetime | None = None
    residency: ResidencyEvidence | None = None
    weighed: JsonValue = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The decision that a running job goes on elsewhere, or waits.

    Attributes:
        held: The pool that it leaves.
        to: Where it is to go; None to wait.
        reason: Why, in words.
        passed_over: Every offer, with what was expected of it or what speaks against it; by pool name.
        task: What was left to do, without its arguments.
        weighed: What the policy over time was given and answered, as `placement.over_time.Weighed` in JSON, without what it
            then remembered.
    """

    held: str
    to: str | None
    reason: str
    passed_over: tuple[PassedOver, ...]
    task: TaskSpec
    decided_at: datetime
    weighed: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSlots:
    """Slots of a pool that a task which waits counts on over `[start, end)`."""

    pool: str
    start: datetime
    end: datetime
    slots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """No offer can be taken, and why not for each.

    Attributes:
        task: What was not placed, without its arguments.
        weighed: What the policy over time was given and answered, where it chose to wait.
        until: When to ask again; None for soon.
        reason: Why the task waits, where it need not; empty where no pool has room.
        foreseen: When committed pools were expected to have room, as a list of `placement.shifting.RoomAhead` in JSON, where
            the plan is to start later on one of them; None where it is not.
        planned: What that plan counts on.
    """

    passed_over: tuple[PassedOver, ...]
    task: TaskSpec | None = None
    decided_at: datetime | None = None
    weighed: JsonValue = None
    until: datetime | None = None
    reason: str = ""
    foreseen: JsonValue = None
    planned: PlannedSlots | None = None

    @property
    def can_wait(self) -> bool:
        """Whether some pool would do if it had room."""
        return any(passed.can_wait for passed in self.passed_over)
