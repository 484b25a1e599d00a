"""Jobs of a team that does not exist: nightly pipelines, sweeps by day and long trainings, from a seed."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from spillway.errors import ScenarioError
from spillway.model import ALL_MARKETS, Market, Pool, Resources, TaskSpec
from spillway.sim.scenario import SimulatedJob

if TYPE_CHECKING:
    from collections.abc import Sequence

# Which share of the jobs is of which kind. Shares and lengths are made up; nothing here was measured.
_KINDS: Final = {"nightly": 0.45, "sweep": 0.50, "training": 0.05}
_TRIALS: Final = 8
_MOST_LOAD: Final = 0.6
_SHORTEST: Final = timedelta(minutes=2)


def synthetic_jobs(
    count: int, pools: Sequence[Pool], *, seed: int, start: datetime, end: datetime
) -> tuple[SimulatedJob, ...]:
    """Return `count` jobs that arrive in `[start, end)`, in order; equal arguments give equal jobs.

    Each asks for the smallest shape among the pools with one accelerator, so all of those can take it. Where all jobs together
    would fill more than six tenths of the steady slots, all are made shorter.

    Raises:
        ScenarioError: There is not one job, or not one pool.
    """
    if count < 1 or not pools:
        raise ScenarioError(
            f"cannot make {count} jobs for {len(pools)} pools; ask for at least one of each"
        )
    numbers = random.Random(seed)  # noqa: S311 - a simulation
    days = max((end - start) // timedelta(days=1), 1)
    shapes = _shapes(pools)
    jobs: list[SimulatedJob] = []
    while len(jobs) < count:
        kind = numbers.choices(list(_KINDS), list(_KINDS.values()))[0]
        day = start + timedelta(days=numbers.randrange(days))
        shape, speed = numbers.choices([s[:2] for s in shapes], [s[2] for s in shapes])[0]
        # The trials of a sweep come together, so a draw of one is worth that many.
        batch = (
            _TRIALS if kind == "sweep" and numbers.random() < 1 / _TRIALS else int(kind != "sweep")
        )
        arrival = day + _arrival(kind, numbers)
        for _ in range(min(batch, count - len(jobs))):
            spec = _spec(kind, arrival, numbers)
            job = SimulatedJob(
                name=f"{kind}-{len(jobs):06}",
                arrives_at=max(min(arrival, end - timedelta(seconds=1)), start),
                spec=replace(spec, resources=shape, work=spec.work * speed),
            )
            jobs.append(job)
    return tuple(
        sorted(_fitted(jobs, pools, end - start), key=lambda job: (job.arrives_at, job.name))
    )


def _arrival(kind: str, numbers: random.Random) -> timedelta:
    """Return the time of day."""
    if kind == "nightly":
        return timedelta(hours=1, seconds=numbers.randrange(3 * 3600))
    return timedelta(hours=8, seconds=numbers.randrange(11 * 3600))


def _spec(kind: str, arrival: datetime, numbers: random.Random) -> TaskSpec:
    hours = timedelta(hours=1)
    if kind == "nightly":
        work = numbers.uniform(0.2, 2.0) * hours
        morning = arrival.replace(hour=9, minute=0, second=0, microsecond=0)
        return _job(kind, work, morning, write=5, restart=120)
    if kind == "sweep":
        work = numbers.uniform(0.2, 1.5) * hours
        deadline = arrival + 12 * hours if numbers.random() < 0.5 else None
        return _job(kind, work, deadline, write=5, restart=120)
    work = numbers.uniform(12, 48) * hours
    return _job(
        kind, work, arrival + work * numbers.uniform(1.15, 1.6) + hours, write=30, restart=300
    )


def _job(
    kind: str, work: timedelta, deadline: datetime | None, *, write: int, restart: int
) -> TaskSpec:
    return TaskSpec(
        entry_point="simulated:job",
        workload=kind,
        work=timedelta(seconds=round(work.total_seconds())),
        markets=ALL_MARKETS,
        checkpoints=True,
        checkpoint_write=timedelta(seconds=write),
        restart_overhead=timedelta(seconds=restart),
        deadline=deadline,
    )


def _fitted(
    jobs: Sequence[SimulatedJob], pools: Sequence[Pool], time: timedelta
) -> list[SimulatedJob]:
    """Return the jobs, each shortened by one factor where together they would fill the steady slots."""
    there = sum(
        (p.slots * p.speed * time for p in pools if p.market is not Market.SPOT), timedelta(0)
    )
    wanted = sum((job.spec.work for job in jobs), timedelta(0))
    factor = min(there * _MOST_LOAD / wanted, 1.0) if there else 1.0
    return [replace(job, spec=_shortened(job.spec, factor)) for job in jobs]


def _shortened(spec: TaskSpec, factor: float) -> TaskSpec:
    seconds = round(spec.work.total_seconds() * factor)
    return replace(spec, work=max(timedelta(seconds=seconds), _SHORTEST))


def _shapes(pools: Sequence[Pool]) -> list[tuple[Resources, float, int]]:
    """Return for each accelerator the shape that every pool with it has, the slowest speed, and all slots."""
    models = sorted({pool.shape.accelerator or "" for pool in pools})
    found: list[tuple[Resources, float, int]] = []
    for model in models:
        alike = [pool for pool in pools if (pool.shape.accelerator or "") == model]
        shapes = [pool.shape for pool in alike]
        smallest = Resources(
            cpus=min(shape.cpus for shape in shapes),
            memory_gib=min(shape.memory_gib for shape in shapes),
            accelerator=model or None,
            accelerator_count=min(shape.accelerator_count for shape in shapes),
            accelerator_fraction=min(shape.accelerator_fraction for shape in shapes),
        )
        found.append((smallest, min(p.speed for p in alike), sum(p.slots for p in alike)))
    return found
