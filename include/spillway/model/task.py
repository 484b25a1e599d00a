"""What a task asks for, and how its attempts are named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from pydantic import JsonValue

from spillway.model.retention import Retention

ENTRY_POINT = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class Market(StrEnum):
    """How capacity is bought."""

    RESERVED = "reserved"
    SPOT = "spot"
    ON_DEMAND = "on_demand"
    PARTNER = "partner"

    @property
    def is_committed(self) -> bool:
        """Whether its price is owed before it is used."""
        return self in (Market.RESERVED, Market.PARTNER)


ALL_MARKETS = frozenset(Market)


class Launcher(StrEnum):
    """What calls the entry point on the nodes of a gang."""

    PLAIN = "plain"
    """The runtime itself, once on each node."""
    TORCHRUN = "torchrun"
    """`torch.distributed.run`, in as many processes on each node as there are accelerators."""
    RAY = "ray"
    """The runtime, on the first node only; a Ray cluster spans all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """A shape: what one task needs, or what one slot of a pool has.

    Attributes:
        memory_gib: Host memory, in GiB (2**30 bytes).
        accelerator: Its model, such as `H100`; None for none.
        accelerator_count: How many of it.
        accelerator_memory_gib: Memory of each, in GiB; 0 where it does not matter or is not known.
        accelerator_fraction: Which part of one accelerator is enough, or is there, from 0 to 1.
    """

    cpus: float = 1.0
    memory_gib: float = 1.0
    accelerator: str | None = None
    accelerator_count: int = 0
    accelerator_memory_gib: float = 0.0
    accelerator_fraction: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task as placement sees it.

    Attributes:
        entry_point: `package.module:function`, called with a `Session` and `arguments`.
        arguments: Keyword arguments, JSON.
        workload: Name under which speed is learned; tasks of one workload do the same kind of work.
        work: Time the task would take, undisturbed, at speed 1, with all its nodes at work.
        markets: Markets the task may be bought on.
        checkpoints: Whether the entry point saves checkpoints; one that does not starts over when preempted.
        checkpoint_write: Time one checkpoint takes to write.
        restart_overhead: Time from lease to first new work, beside what the pool adds.
        deadline: When the task must be complete; None for whenever.
        max_usd_per_hour: Dearest marginal price accepted for one slot.
        max_attempts: Leases the task may use inside one Airflow try.
        state_gib: Size of one checkpoint, in GiB.
        input_gib: What every start reads out of the store beside it, in GiB.
        alternatives: Other shapes that would do as well as `resources`.
        max_cost_usd: What completing the task may be expected to add to the bill, all of its leases together: its budget.
        spent_usd: What its leases so far have added; only known where there is a budget.
        regions: Shell patterns of the regions allowed, such as `europe-*`; empty for any.
        residency: Jurisdictions the task may run in and leave checkpoints and outputs in; empty for any.
        providers: Providers allowed; empty for any.
        architectures: Processor architectures its image is built for, in OCI's words; empty for any.
        nodes: Machines of that shape it needs at once, a gang; each takes one slot of its pool.
        retention: Which of its checkpoints are kept.
        launcher: What calls the entry point on them.
    """

    entry_point: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    workload: str = "default"
    resources: Resources = field(default_factory=Resources)
    work: timedelta = timedelta(hours=1)
    markets: frozenset[Market] = ALL_MARKETS
    checkpoints: bool = False
    checkpoint_write: timedelta = timedelta(seconds=1)
    restart_overhead: timedelta = timedelta(seconds=5)
    deadline: datetime | None = None
    max_usd_per_hour: Decimal | None = None
    max_attempts: int = 10
    state_gib: float = 0.0
    input_gib: float = 0.0
    alternatives: tuple[Resources, ...] = ()
    max_cost_usd: Decimal | None = None
    spent_usd: Decimal = Decimal(0)
    regions: frozenset[str] = frozenset()
    residency: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    architectures: frozenset[str] = frozenset()
    nodes: int = 1
    retention: Retention = field(default_factory=Retention)
    launcher: Launcher = Launcher.PLAIN

    @property
    def shapes(self) -> tuple[Resources, ...]:
        """Every shape that would do, the one that is asked for first."""
        return (self.resources, *self.alternatives)

    @property
    def budget_left_usd(self) -> Decimal | None:
        """What of the budget is not spent; None where there is no budget."""
        return (
            None
            if self.max_cost_usd is None
            else max(self.max_cost_usd - self.spent_usd, Decimal(0))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskKey:
    """One task instance of one DAG run; `map_index` is -1 when the task is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        mapped = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}/{self.run_id}/{self.task_id}{mapped}"

    def attempt(self, number: int) -> str:
        """Return the key of attempt `number`, from 1: the name its job carries at the provider."""
        return f"{self.dag_id}/{self.run_id}/{self.task_id}/{self.map_index}/{number}"
