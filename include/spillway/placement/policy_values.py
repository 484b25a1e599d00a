"""What the policy over time is told, remembers and answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from spillway.model.task import Market


class Action(StrEnum):
    """What to do until the pools are looked at again."""

    RUN = "run"
    WAIT = "wait"
    MOVE = "move"
    CHECKPOINT_AND_MOVE = "checkpoint_and_move"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The lease the job runs on.

    Attributes:
        restart_left: Restart overhead still to be served before new work.
        uncommitted: Work that no committed checkpoint holds, lost if the capacity goes now without a last one.
        is_saved_on_notice: Whether the warning time is long enough for a last checkpoint, so that nothing is lost.
    """

    pool: str
    restart_left: timedelta = timedelta(0)
    uncommitted: timedelta = timedelta(0)
    is_saved_on_notice: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """A job as it stands. Work, here and of what is held, is the time that it takes at pace 1.

    Attributes:
        work_left: Time it would still take, undisturbed.
        deadline: When it must be complete; None for whenever.
        restart_overhead: Time from lease to first new work.
        next_look: Longest time until the policy is asked again.
        held: What it runs on; None while it holds nothing or has just lost it.
        checkpoints_every: Most work that no checkpoint holds at a time; more than that means that one is overdue.
        queue: How long steady capacity may be taken by tasks whose turn is before, once this one needs it.
    """

    work_left: timedelta
    deadline: datetime | None
    restart_overhead: timedelta
    next_look: timedelta
    held: Held | None = None
    checkpoints_every: timedelta = timedelta(0)
    queue: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """One pool as seen now.

    Attributes:
        usd_per_hour: Marginal price, of all nodes.
        available: Whether it has room now, or holds the job; None when that was not looked at.
        extra_restart: What running here adds to the job's restart overhead, such as moving its data.
        move_usd: What a start here costs beside the machine, such as egress of the job's state; nothing for a job that is here.
        ends_at: First instant on which its slots are gone; None where there is no end.
        pace: Work done there in an hour, checkpoints included, in hours at pace 1.
    """

    name: str
    market: Market
    usd_per_hour: float
    available: bool | None = True
    extra_restart: timedelta = timedelta(0)
    move_usd: float = 0.0
    ends_at: datetime | None = None
    pace: float = 1.0

    @property
    def is_steady(self) -> bool:
        """Whether capacity, once leased, stays: until its end, where it has one."""
        return self.market is not Market.SPOT


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBelief:
    """How likely each state of the availability model is, at the last look."""

    pool: str
    chances: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """What the policy remembers of a job's pools. Starts empty; JSON through `model.codec`.

    Attributes:
        market: How likely each state of the availability model is for the spot pools together: whether any has room.
    """

    seen_at: datetime | None = None
    beliefs: tuple[PoolBelief, ...] = ()
    market: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One thing that could be done, and what completing the job would then cost; `pool` is None for waiting."""

    pool: str | None
    expected_usd: float
    in_time: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do, where, and every option with its price.

    Attributes:
        pool: Where to run; None when waiting.
        options: Cheapest first among those that keep the deadline, the others after them.
    """

    action: Action
    pool: str | None
    reason: str
    options: tuple[Option, ...]
