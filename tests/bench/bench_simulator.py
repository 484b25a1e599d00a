"""A month of 10,000 jobs, or `SPILLWAY_SIMULATED_JOBS`, simulated: the CPU that each policy takes, and what ours costs beside the others.

And twelve months of 300 jobs on the pools as shipped, each with jobs and outages of its own; and a month of recorded capacity and
recorded prices, where the recordings are beside the tree: folders `traces` and `catalog` below `SPILLWAY_SPOT_DATA`, by default `../shared`.

Value tables are kept in a folder of the run's own, so the first figure of ours holds making them, and the second does not.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from time import process_time

from measurement import Baseline, Measurement

from spillway.catalog.pools_file import load_pools
from spillway.catalog.value_tables import ValueTables
from spillway.model import HourlyCommitment, Market, Pool, Resources
from spillway.sim.engine import GIVE_UP_AFTER, simulate
from spillway.sim.outages import all_outages
from spillway.sim.price_files import read_prices
from spillway.sim.production import Spillway
from spillway.sim.scenario import Scenario, whole_month
from spillway.sim.strategies import CheapestPerHour, GreedySpot, OnDemandOnly, UniformProgress
from spillway.sim.summary import Summary, summarise
from spillway.sim.synthetic import synthetic_jobs
from spillway.sim.trace_files import read_traces

SHIPPED = Path(__file__).parents[2] / "include" / "pools.yaml"
SEEDS = range(1, 13)
DATA = Path(os.environ.get("SPILLWAY_SPOT_DATA", Path(__file__).parents[3] / "shared"))
# Pool: whose capacity it has, whose price it follows, and what it asked at first. The scarcest is the cheapest.
RECORDED = {
    "spot-a": ("us-east-1f", "Standard_NC24ads_A100_v4/eastus", "0.68"),
    "spot-b": ("us-east-2a", "Standard_NC24ads_A100_v4/uksouth", "0.97"),
    "spot-c": ("us-west-2a", "Standard_NC24ads_A100_v4/westus2", "1.62"),
}
RECORDED_JOBS = 1000
JOBS = int(os.environ.get("SPILLWAY_SIMULATED_JOBS", "10000"))


def run() -> list[Measurement]:
    """Simulate the month under each policy."""
    world = month(JOBS, large_pools())
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder)
        on_demand, base = timed(world, OnDemandOnly())
        others = [timed(world, one()) for one in (CheapestPerHour, GreedySpot, UniformProgress)]
        ours = timed(world, Spillway(ValueTables(tables, memory_bytes=2**30)))
        again = timed(world, Spillway(ValueTables(tables, memory_bytes=2**30)))
    named = [("", on_demand, base), *(("", one, s) for one, s in others)]
    named += [(", tables made", *ours), (", tables kept", *again)]
    for what, summary, seconds in named:
        found.append(
            Measurement(
                name=f"{summary.policy}{what}: {JOBS:,} jobs over a month",
                value=seconds,
                unit="s CPU",
                baseline=Baseline(name="on_demand", value=base),
            )
        )
    uniform = others[-1][0]
    found.append(
        Measurement(
            name=f"spillway: added to the bill ({ours[0].late} late, uniform_progress {uniform.late})",
            value=float(ours[0].added_usd),
            unit="USD",
            baseline=Baseline(name="uniform_progress", value=float(uniform.added_usd)),
        )
    )
    return [*found, *shipped_months(), *recorded_month()]


def shipped_months() -> list[Measurement]:
    """Compare what twelve months add to the bill on the shipped pools."""
    pools = load_pools(SHIPPED)
    added: dict[str, float] = {}
    late: dict[str, int] = {}
    tables = ValueTables(memory_bytes=2**30)
    for seed in SEEDS:
        world = month(300, pools, seed=seed)
        for strategy in (GreedySpot(), UniformProgress(), Spillway(tables)):
            summary = summarise(simulate(world, strategy))
            name = summary.policy
            added[name] = added.get(name, 0.0) + float(summary.added_usd)
            late[name] = late.get(name, 0) + summary.late
    return [
        Measurement(
            name=f"spillway: added in {len(SEEDS)} months on the shipped pools ({late['spillway']} late, {other} {late[other]})",
            value=added["spillway"],
            unit="USD",
            baseline=Baseline(name=other, value=added[other]),
        )
        for other in ("greedy_spot", "uniform_progress")
    ]


def recorded_month() -> list[Measurement]:
    """Compare what a month adds to the bill where capacity and prices are as they were recorded; nothing without recordings."""
    history = sorted((DATA / "catalog" / "spot_history").glob("*.csv"))
    folder = DATA / "traces" / "aws-2023-02-15"
    if not history or not folder.is_dir():
        return []
    world = recorded(RECORDED_JOBS, folder, history)
    policies = (OnDemandOnly(), CheapestPerHour(), GreedySpot(), UniformProgress())
    others = [summarise(simulate(world, one)) for one in policies]  # type: ignore[arg-type]  # each is a Strategy
    ours = summarise(simulate(world, Spillway(ValueTables(memory_bytes=2**30))))
    return [
        Measurement(
            name=f"spillway: added in a recorded month of {RECORDED_JOBS:,} jobs ({ours.late} late, {other.policy} {other.late})",
            value=float(ours.added_usd),
            unit="USD",
            baseline=Baseline(name=other.policy, value=float(other.added_usd)),
        )
        for other in others
    ]


def recorded(jobs: int, traces: Path, history: list[Path]) -> Scenario:
    """Return the month in which most prices of the history changed, with capacity of another month."""
    pools = (
        *(pool(name, Market.SPOT, usd, slots=12) for name, (_, _, usd) in RECORDED.items()),
        pool("on_demand", Market.ON_DEMAND, "3.673", slots=400),
    )
    start, end = whole_month("2026-05")
    files = [f"{name}={traces / zone}_v100_1.json" for name, (zone, _, _) in RECORDED.items()]
    capacity = read_traces(files, [one.name for one in pools])
    until = end + GIVE_UP_AFTER
    return Scenario(
        pools=pools,
        jobs=synthetic_jobs(jobs, pools, seed=1, start=start, end=end),
        start=start,
        end=end,
        outages=all_outages(pools, capacity, seed=1, start=start, end=end, until=until),
        counted=frozenset(RECORDED),
        prices=read_prices(
            history, pools, {name: series for name, (_, series, _) in RECORDED.items()}, start
        ),
    )


def timed(world: Scenario, strategy: object) -> tuple[Summary, float]:
    began = process_time()
    outcome = simulate(world, strategy)  # type: ignore[arg-type]  # each is a Strategy
    return summarise(outcome), process_time() - began


def large_pools() -> tuple[Pool, ...]:
    kept = HourlyCommitment(usd_per_slot_hour=Decimal("1.8"))
    return (
        pool("reserved", Market.RESERVED, "3.0", slots=12, commitment=kept),
        pool("spot-a", Market.SPOT, "1.0", slots=40, preemptions_per_hour=0.15),
        pool("spot-b", Market.SPOT, "1.1", slots=40, preemptions_per_hour=0.1),
        pool("on_demand", Market.ON_DEMAND, "3.0", slots=400),
    )


def month(jobs: int, pools: tuple[Pool, ...], *, seed: int = 1) -> Scenario:
    start, end = whole_month("2026-10")
    until = end + GIVE_UP_AFTER
    return Scenario(
        pools=pools,
        jobs=synthetic_jobs(jobs, pools, seed=seed, start=start, end=end),
        start=start,
        end=end,
        outages=all_outages(pools, [], seed=seed, start=start, end=end, until=until),
    )


def pool(name: str, market: Market, price: str, **more: object) -> Pool:
    return Pool(
        name=name,
        backend="simulated",
        market=market,
        shape=Resources(cpus=8, memory_gib=32, accelerator="A100", accelerator_count=1),
        list_usd_per_hour=Decimal(price),
        restart_overhead=timedelta(minutes=2),
        **more,  # type: ignore[arg-type]  # slots and terms
    )
