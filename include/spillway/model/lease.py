"""Capacity held for one attempt, and what is seen of it while it lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from pydantic import ConfigDict, JsonValue

from spillway.model.retention import Retention
from spillway.model.task import Launcher, Market, Resources, TaskKey


class LeaseState(StrEnum):
    """Where an attempt is in its life; `placement/lifecycle.py` has the moves between them."""

    GRANTED = "granted"
    STARTING = "starting"
    RUNNING = "running"
    MOVING = "moving"
    """Asked to save and stop, because another pool has become the better one."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PREEMPTED = "preempted"
    VANISHED = "vanished"
    CANCELLED = "cancelled"
    MOVED = "moved"
    """Stopped as it was asked to; goes on elsewhere."""


class JobEvent(StrEnum):
    """What a backend reports, or a person does."""

    SUBMITTED = "submitted"
    STARTED = "started"
    ASKED_TO_MOVE = "asked_to_move"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PREEMPTED = "preempted"
    VANISHED = "vanished"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The request exactly as it will be sent. Holds no secret.

    Attributes:
        key: Names the job at the provider; the same key never starts two jobs.
        token: Fencing token of the lease; grows with every lease of the ledger.
        store: URL of the checkpoint store.
        prefix: Where in the store this task's checkpoints, heartbeats and results are.
        checkpoint_interval: Time between checkpoints; None for the runtime's own choice.
        fresh_start: Whether to ignore checkpoints of earlier leases.
        nodes: Machines that start together, each running this submission.
        launcher: What calls the entry point on them.
        market: How the capacity was bought; a backend of several markets asks for this one.
        preemptions_per_hour: Rate at which the pool is expected to take capacity back, from any of the nodes; None when
            unknown.
        retention: Which of the task's checkpoints are kept.
        marginal_usd_per_hour: Marginal price at launch, of all its nodes together; None when nobody said.
        effective_usd_per_hour: Price with commitments amortised, at launch, of all its nodes.
    """

    key: str
    pool: str
    token: int
    entry_point: str
    arguments: Mapping[str, JsonValue]
    resources: Resources
    store: str
    prefix: str
    grace_period: timedelta
    checkpoint_interval: timedelta | None = None
    fresh_start: bool = False
    nodes: int = 1
    market: Market = Market.ON_DEMAND
    preemptions_per_hour: float | None = None
    retention: Retention = field(default_factory=Retention)
    launcher: Launcher = Launcher.PLAIN
    marginal_usd_per_hour: Decimal | None = None
    effective_usd_per_hour: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Capacity held for one attempt, from grant to release.

    Attributes:
        token: Fencing token: unique, and larger than that of every earlier lease.
        number: Which attempt of its task this is, from 1.
        owner_try: Airflow's try that answers for it; only that try may cancel it.
        owner_clear: Which life of the task that try belongs to; a larger number after each clear.
        marginal_usd_per_hour: Marginal price at launch, of all its slots together.
        effective_usd_per_hour: Price with commitments amortised, at launch, of all its slots.
        list_usd_per_hour: Public price, at launch, of all its slots.
        started_at: When the job was first seen running; None until then.
        ended_at: When the capacity was given back; None while the lease is open.
        detail: Why it ended, for people.
        provider_id: The provider's own name for the job; None until it is known, or when it is found by our key.
        slots: How many slots of its pool it holds: one for each node of a gang.
    """

    key: str
    task: TaskKey
    number: int
    token: int
    pool: str
    backend: str
    state: LeaseState
    owner_try: int
    owner_clear: int
    granted_at: datetime
    marginal_usd_per_hour: Decimal
    effective_usd_per_hour: Decimal
    list_usd_per_hour: Decimal
    submission: Submission
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    detail: str = ""
    provider_id: str | None = None
    slots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the provider said of one lease.

    Attributes:
        event: What it means for the lease; None when there is nothing new or the state is unknown to us.
        exit_code: The job's, once it ended.
        detail: The provider's own words, for people.
        seen_at: When it was asked.
    """

    event: JobEvent | None
    seen_at: datetime
    exit_code: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What the task itself said, and when.

    Attributes:
        token: Lease that wrote it.
        step: Steps done; None before the first progress report.
        total_steps: Steps to do; None when not known.
        metrics: Latest value of each reported metric.
        checkpoint_step: Step of the last committed checkpoint.
        useful: Leased time whose work is kept: from the first new step to the last commit, or to the end when it succeeded.
        first_progress_at: When the first new step of this lease was reported.
        first_step: Which step that was.
        stored_gib: What the task's checkpoints take in the store, in GiB; None when not known.
        stored_since: Since when they take that much.
        stored_from: When this lease first had some.
        stored_gib_hours: What was stored from `stored_from` to `stored_since`, times how long.
        checkpoint_interval: Time between checkpoints, as the job goes by it now; None when it has not said.
        checkpoint_reason: Why it is that long, for people.
        expected_loss: Work that a preemption costs on average at that interval.
        steps_per_second: How fast it works now, recent steps counting more; None before two reports.
        alive_at: When it was written; `written_at` is when the task last had something to say.
        notice: Who said that the capacity will be taken back, and in which words; empty without a notice.
        log_tail: Last lines that the job printed.
    """

    # JSON has no NaN, and a loss that diverged must not make the heartbeat unreadable.
    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    token: int
    written_at: datetime
    step: int | None = None
    total_steps: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    checkpoint_step: int | None = None
    useful: timedelta = timedelta(0)
    first_progress_at: datetime | None = None
    first_step: int | None = None
    stored_gib: float | None = None
    stored_since: datetime | None = None
    stored_from: datetime | None = None
    stored_gib_hours: float = 0.0
    checkpoint_interval: timedelta | None = None
    checkpoint_reason: str = ""
    expected_loss: timedelta | None = None
    steps_per_second: float | None = None
    alive_at: datetime | None = None
    notice: str = ""
    log_tail: str = ""
