"""What became of the jobs of a scenario under one policy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from spillway.ledger.accrual import accrue, cost
from spillway.model import (
    CostRecord,
    Lease,
    LeaseState,
    Market,
    Resources,
    Submission,
    TaskKey,
)
from spillway.sim.scenario import Scenario

_NOTHING = timedelta(0)


class End(StrEnum):
    """How an attempt ended."""

    FINISHED = "finished"
    PREEMPTED = "preempted"
    LEFT = "left"
    CUT = "cut"  # the simulation was given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One lease. `restart + writing + useful + lost` is the time it was leased.

    Attributes:
        number: Which of its job's, from 1.
        useful: Work that was kept.
        lost: Work that was done and has to be done again.
    """

    job: str
    number: int
    pool: str
    market: Market
    backend: str
    granted_at: datetime
    ended_at: datetime
    end: End
    restart: timedelta
    writing: timedelta
    useful: timedelta
    lost: timedelta
    marginal_usd_per_hour: Decimal
    effective_usd_per_hour: Decimal
    list_usd_per_hour: Decimal

    @property
    def leased(self) -> timedelta:
        """How long the capacity was held."""
        return self.ended_at - self.granted_at

    def usd(self, usd_per_hour: Decimal) -> Decimal:
        """Return what the whole lease costs at a price: the sum of its cost records, without making them."""
        since = self.granted_at
        return cost(usd_per_hour, since=since, start=since, end=self.ended_at)

    def cost_records(self) -> list[CostRecord]:
        """Return what the ledger would have written for the lease."""
        return accrue(self._lease(), self.market, until=self.ended_at)

    def _lease(self) -> Lease:
        task = TaskKey(dag_id="simulated", run_id=self.job, task_id="job")
        key = task.attempt(self.number)
        return Lease(
            key=key,
            task=task,
            number=self.number,
            token=self.number,
            pool=self.pool,
            backend=self.backend,
            state=_STATE[self.end],
            owner_try=1,
            owner_clear=0,
            granted_at=self.granted_at,
            ended_at=self.ended_at,
            marginal_usd_per_hour=self.marginal_usd_per_hour,
            effective_usd_per_hour=self.effective_usd_per_hour,
            list_usd_per_hour=self.list_usd_per_hour,
            submission=Submission(
                key=key,
                pool=self.pool,
                token=self.number,
                entry_point="",
                arguments={},
                resources=Resources(),
                store="",
                prefix="",
                grace_period=_NOTHING,
            ),
        )


_STATE = {
    End.FINISHED: LeaseState.SUCCEEDED,
    End.PREEMPTED: LeaseState.PREEMPTED,
    End.LEFT: LeaseState.CANCELLED,
    End.CUT: LeaseState.CANCELLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """What became of one job.

    Attributes:
        finished_at: None when it never was.
        waiting: Time from its arrival to its end in which it held nothing.
    """

    name: str
    arrived_at: datetime
    deadline: datetime | None
    finished_at: datetime | None
    waiting: timedelta

    @property
    def is_on_time(self) -> bool | None:
        """Whether it met its deadline; None where it had none."""
        if self.deadline is None:
            return None
        return self.finished_at is not None and self.finished_at <= self.deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a scenario under one policy: attempts in the order of their ends, jobs in that of the scenario."""

    policy: str
    scenario: Scenario
    jobs: tuple[JobOutcome, ...]
    attempts: tuple[Attempt, ...]
    questions: int
