"""What is simulated: the pools, what became of their capacity and prices, and the jobs that came."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from spillway.catalog.offers import make_offers
from spillway.errors import ScenarioError
from spillway.model import CapacityBlock, Pool, PoolUsage, TaskSpec
from spillway.placement.explain import span
from spillway.placement.feasible import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_LOOK: Final = timedelta(minutes=10)
DEFAULT_PATIENCE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedJob:
    """One task, and when it comes. `spec.work` is what it really takes, and what policies are told."""

    name: str
    arrives_at: datetime
    spec: TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotChange:
    """One slot of a pool is taken back by the provider, or is to be had again."""

    at: datetime
    pool: str
    slot: int
    is_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """From `at` on, the pool's list price is another."""

    at: datetime
    pool: str
    usd_per_hour: Decimal


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Everything a simulation depends on: equal scenarios have equal outcomes.

    Attributes:
        start: First instant of the time simulated.
        end: First instant after it. Jobs under way then are followed to their end.
        outages: What happened to slots, oldest first; a slot that is not in it is there all the time.
        counted: Pools whose outages say how many slots there were, not which: a lease keeps going while there are
            enough.
        prices: Changes of list prices, oldest first; before the first one the pools file's price holds.
        look: How often running and waiting jobs are looked at, beside what happens to them.
        patience: How long a job is left alone at looks while no pool of its opens or changes its price, and its slack
            is large. Not above `look`, every job is asked about at every look.
        notes: What the reader of the outcome should know of where this came from.
    """

    pools: tuple[Pool, ...]
    jobs: tuple[SimulatedJob, ...]
    start: datetime
    end: datetime
    outages: tuple[SlotChange, ...] = ()
    counted: frozenset[str] = frozenset()
    prices: tuple[PriceChange, ...] = ()
    look: timedelta = DEFAULT_LOOK
    patience: timedelta = DEFAULT_PATIENCE
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ScenarioError(f"nothing to simulate: {self.start} is not before {self.end}")
        if self.look <= timedelta(0):
            raise ScenarioError(f"jobs cannot be looked at every {self.look}; give a positive time")
        names = {pool.name for pool in self.pools}
        changes: tuple[tuple[SlotChange | PriceChange, ...], ...] = (self.outages, self.prices)
        for some in changes:
            for change in some:
                if change.pool not in names:
                    raise ScenarioError(unknown_pool(change.pool, names))
            for earlier, later in pairwise(some):
                if later.at < earlier.at:
                    raise ScenarioError(f"changes are not in order: {later.at} after {earlier.at}")
        self._check_jobs()

    @cached_property
    def able(self) -> Mapping[str, frozenset[str]]:
        """By the name of a job, the pools that could take it at some time, whatever their room and prices."""
        known: dict[object, frozenset[str]] = {}
        found: dict[str, frozenset[str]] = {}
        for job in self.jobs:
            kind = _kind(job.spec)
            if kind not in known:
                known[kind] = frozenset(able_pools(job.spec, self.pools, self.start))
            found[job.name] = known[kind]
        return found

    @cached_property
    def price_steps(self) -> Mapping[str, tuple[list[datetime], list[Decimal]]]:
        """By pool, when its list price changes, and each price: one more than changes, the first before any of them."""
        steps: dict[str, tuple[list[datetime], list[Decimal]]] = {
            pool.name: ([], [pool.list_usd_per_hour]) for pool in self.pools
        }
        for change in self.prices:
            steps[change.pool][0].append(change.at)
            steps[change.pool][1].append(change.usd_per_hour)
        return steps

    def _check_jobs(self) -> None:
        if not self.jobs:
            raise ScenarioError(
                f"no job comes between {self.start:%Y-%m-%d} and {self.end:%Y-%m-%d}; "
                "choose another month or other jobs"
            )
        if len({job.name for job in self.jobs}) < len(self.jobs):
            raise ScenarioError("two jobs have one name; give each its own")
        for job in self.jobs:
            if not self.start <= job.arrives_at < self.end:
                raise ScenarioError(
                    f"job {job.name} comes at {job.arrives_at}, outside of the time simulated"
                )
            if job.spec.nodes != 1:
                raise ScenarioError(
                    f"job {job.name} needs {job.spec.nodes} machines at once; gangs are not simulated"
                )
            if job.spec.work <= timedelta(0):
                raise ScenarioError(f"job {job.name} has no work to do; leave it out")
            if not self.able[job.name]:
                raise ScenarioError(
                    f"job {job.name}: no pool could ever take it; relax what it asks for, or add a pool:\n"
                    + "\n".join(_refusals(job.spec, self.pools, self.start))
                )


def able_pools(spec: TaskSpec, pools: Iterable[Pool], now: datetime) -> list[str]:
    """Return the names of the pools that could take `spec` at some time, whatever their room and prices."""
    return [name for name, reason in _answers(spec, pools, now) if reason is None]


def unknown_pool(name: str, known: Iterable[str]) -> str:
    """Say that a file names a pool there is none of."""
    return f"pool {name!r} is not in the pools file; it has {', '.join(sorted(known))}"


def whole_month(month: str) -> tuple[datetime, datetime]:
    """Return the first instant (UTC) of a month such as `2026-10`, and that of the next.

    Raises:
        ScenarioError: It is not a month.
    """
    try:
        start = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as error:
        raise ScenarioError(f"{month!r} is not a month; write it like 2026-10") from error
    return start, (start + timedelta(days=32)).replace(day=1)


def _refusals(spec: TaskSpec, pools: Iterable[Pool], now: datetime) -> list[str]:
    return [f"  {name} {reason}" for name, reason in _answers(spec, pools, now) if reason]


def _answers(spec: TaskSpec, pools: Iterable[Pool], now: datetime) -> list[tuple[str, str | None]]:
    """Return what keeps each pool from taking a job like `spec` that is short, in no hurry and has no budget."""
    asked = replace(
        spec, work=timedelta(seconds=1), deadline=None, max_usd_per_hour=None, max_cost_usd=None
    )
    found: list[tuple[str, str | None]] = []
    for offer in make_offers(
        [_whenever(pool) for pool in pools],
        usage=dict[str, PoolUsage](),
        free_slots={},
        task=asked,
        now=now,
        store_jurisdiction=store_jurisdiction(spec),
    ):
        no = refusal(asked, offer, now)
        found.append((offer.pool, None if no is None or no.can_wait else no.reason))
    return found


def _whenever(pool: Pool) -> Pool:
    """Return a pool with its slots there at any time; a capacity block has none outside of it."""
    return replace(pool, commitment=None) if isinstance(pool.commitment, CapacityBlock) else pool


def store_jurisdiction(spec: TaskSpec) -> str | None:
    """Return where checkpoints are taken to be kept: somewhere the task allows."""
    return min(spec.residency, default=None)


def _kind(spec: TaskSpec) -> object:
    return (
        spec.resources,
        spec.alternatives,
        spec.markets,
        spec.regions,
        spec.residency,
        spec.providers,
        spec.architectures,
    )


def describe(scenario: Scenario) -> str:
    """Return one line on what is simulated."""
    work = sum((job.spec.work for job in scenario.jobs), timedelta(0))
    return (
        f"{len(scenario.jobs):,} jobs, {span(work)} of work, {len(scenario.pools)} pools, "
        f"{scenario.start:%Y-%m-%d} to {scenario.end:%Y-%m-%d}"
    )
