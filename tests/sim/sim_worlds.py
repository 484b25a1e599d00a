"""Small worlds to simulate."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from spillway.model import Market, Pool, Resources, TaskSpec
from spillway.sim.scenario import Scenario, SimulatedJob, SlotChange

START = datetime(2026, 10, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def pool(name: str, market: Market, price: str, *, slots: int = 1, **more: Any) -> Pool:
    return Pool(
        name=name,
        backend="fake",
        market=market,
        slots=slots,
        shape=Resources(cpus=4, memory_gib=16),
        list_usd_per_hour=Decimal(price),
        **more,
    )


def job(name: str, hours: float, *, at: timedelta = timedelta(0), **more: Any) -> SimulatedJob:
    due = more.pop("due", None)
    spec = TaskSpec(
        entry_point="simulated:job",
        work=hours * HOUR,
        restart_overhead=timedelta(0),
        checkpoint_write=timedelta(0),
        deadline=None if due is None else START + at + due * HOUR,
    )
    return SimulatedJob(name=name, arrives_at=START + at, spec=replace(spec, **more))


def scenario(*pools: Pool, jobs: list[SimulatedJob], days: float = 31, **more: Any) -> Scenario:
    return Scenario(
        pools=pools, jobs=tuple(jobs), start=START, end=START + timedelta(days=days), **more
    )


def gone(name: str, first: float, last: float, slot: int = 0) -> list[SlotChange]:
    """The slot is away from hour `first` to hour `last`."""
    return [
        SlotChange(at=START + first * HOUR, pool=name, slot=slot, is_up=False),
        SlotChange(at=START + last * HOUR, pool=name, slot=slot, is_up=True),
    ]
