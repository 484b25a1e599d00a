"""`spillway simulate`: what a month of jobs would have cost on these pools, policy by policy."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spillway.catalog.numbers import above_zero
from spillway.catalog.pools_file import load_pools
from spillway.catalog.value_tables import ValueTables
from spillway.errors import ScenarioError, SpillwayError
from spillway.sim.engine import GIVE_UP_AFTER, simulate
from spillway.sim.job_files import read_jobs
from spillway.sim.ledger_jobs import ledger_jobs
from spillway.sim.outages import all_outages
from spillway.sim.price_files import read_prices
from spillway.sim.production import Spillway
from spillway.sim.scenario import DEFAULT_LOOK, Scenario, describe, whole_month
from spillway.sim.strategies import (
    CheapestPerHour,
    GreedySpot,
    OnDemandOnly,
    UniformProgress,
)
from spillway.sim.summary import Summary, as_json, summarise, table
from spillway.sim.synthetic import synthetic_jobs
from spillway.sim.trace_files import read_traces

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from spillway.model import Pool
    from spillway.sim.scenario import SimulatedJob
    from spillway.sim.strategies import Strategy

POLICIES: Final = ("on_demand", "cheapest_per_hour", "greedy_spot", "uniform_progress", "spillway")
_TABLE_BYTES: Final = 1024 * 2**20
_SAY_EVERY_SECONDS: Final = 5.0
_LONGEST_LOOK_MINUTES: Final = 24 * 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of the command."""
    parser.add_argument("--pools", type=Path, required=True, help="the pools file")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--jobs", type=Path, metavar="FILE", help="jobs from a .csv or .jsonl file")
    source.add_argument(
        "--ledger", metavar="URL", help="jobs from the ledger: what was run in the month"
    )
    source.add_argument("--synthetic", type=int, metavar="N", help="N jobs that are made up")
    parser.add_argument(
        "--month", metavar="YYYY-MM", help="by default that of the first job, or the last one"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of made-up jobs and outages; default 1"
    )
    parser.add_argument(
        "--traces", nargs="+", default=[], metavar="TRACE", help="FILE.csv or POOL=FILE.json"
    )
    parser.add_argument(
        "--prices", nargs="+", default=[], type=Path, metavar="FILE", help="price history"
    )
    parser.add_argument("--series", nargs="+", default=[], metavar="POOL=TYPE/PLACE",
                        help="which price of the history a pool follows")  # fmt: skip
    parser.add_argument(
        "--policies", default=",".join(POLICIES), help=f"by default {','.join(POLICIES)}"
    )
    parser.add_argument("--look-minutes", type=above_zero(_LONGEST_LOOK_MINUTES), default=DEFAULT_LOOK / timedelta(minutes=1),
                        help="time between two looks at jobs; default 10")  # fmt: skip
    parser.add_argument("--tables", type=Path, default=_default_tables(), metavar="FOLDER",
                        help="where value tables are kept between runs")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Simulate, print, and return the exit status."""
    try:
        names = _policies(options.policies)
        scenario = _scenario(options)
        summaries = [_simulated(name, scenario, options.tables) for name in names]
    except SpillwayError as error:
        sys.stderr.write(f"spillway simulate: {error}\n")
        return 1
    sys.stdout.write(
        _as_json(scenario, summaries) if options.json else _as_text(scenario, summaries)
    )
    return 0


def _scenario(options: argparse.Namespace) -> Scenario:
    pools = load_pools(options.pools)
    names = [pool.name for pool in pools]
    traces = read_traces(options.traces, names)
    start, end, jobs = _jobs(options, pools)
    prices = read_prices(options.prices, pools, _pairs(options.series), start)
    replayed = [trace.pool for trace in traces if not trace.covers(start, end)]
    notes = [
        f"capacity of {name}: recorded at another time, played over and over" for name in replayed
    ]
    return Scenario(
        pools=pools,
        jobs=jobs,
        start=start,
        end=end,
        outages=all_outages(
            pools, traces, seed=options.seed, start=start, end=end, until=end + GIVE_UP_AFTER
        ),
        counted=frozenset(trace.pool for trace in traces),
        prices=prices,
        look=timedelta(minutes=options.look_minutes),
        notes=tuple(notes),
    )


def _jobs(
    options: argparse.Namespace, pools: Sequence[Pool]
) -> tuple[datetime, datetime, tuple[SimulatedJob, ...]]:
    """Return the time simulated and the jobs in it."""
    if options.jobs is not None:
        listed = read_jobs(options.jobs)
        start, end = whole_month(options.month or f"{listed[0].arrives_at:%Y-%m}")
        inside = tuple(job for job in listed if start <= job.arrives_at < end)
        if not inside:
            raise ScenarioError(
                f"{options.jobs}: none of its {len(listed)} jobs comes in {start:%Y-%m}; they come from "
                f"{listed[0].arrives_at:%Y-%m-%d} to {listed[-1].arrives_at:%Y-%m-%d}: choose another --month"
            )
        return start, end, inside
    start, end = whole_month(options.month or _last_month())
    if options.ledger is not None:
        return start, end, ledger_jobs(options.ledger, pools, start=start, end=end)
    return (
        start,
        end,
        synthetic_jobs(options.synthetic, pools, seed=options.seed, start=start, end=end),
    )


def _simulated(name: str, scenario: Scenario, tables: Path) -> Summary:
    began = said = time.monotonic()

    def progress(share: float) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAY_EVERY_SECONDS:
            said = time.monotonic()
            sys.stderr.write(f"{name}: {share:.0%} of the jobs after {said - began:.0f} s\n")

    return summarise(simulate(scenario, _strategy(name, tables), progress=progress))


def _strategy(name: str, tables: Path) -> Strategy:
    match name:
        case "on_demand":
            return OnDemandOnly()
        case "cheapest_per_hour":
            return CheapestPerHour()
        case "greedy_spot":
            return GreedySpot()
        case "uniform_progress":
            return UniformProgress()
        case _:
            return Spillway(ValueTables(tables, memory_bytes=_TABLE_BYTES))


def _policies(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in POLICIES]
    if unknown or not names:
        raise ScenarioError(f"--policies {text}: there is {', '.join(POLICIES)}; name some of them")
    return names


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        pool, is_pair, series = text.partition("=")
        if not is_pair:
            raise ScenarioError(f"--series {text}: write POOL=TYPE/PLACE")
        pairs[pool] = series
    return pairs


def _last_month() -> str:
    first = datetime.now(UTC).replace(day=1)
    return f"{first - timedelta(days=1):%Y-%m}"


def _default_tables() -> Path:
    chosen = os.environ.get("SPILLWAY_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "spillway" / "tables"


def _as_text(scenario: Scenario, summaries: Sequence[Summary]) -> str:
    owed = summaries[0].owed_usd
    lines = [describe(scenario), *scenario.notes, "", table(summaries), ""]
    lines.append(f"Of each bill {owed:,.2f} $ is owed for commitments whether used or not.")
    return "\n".join(lines) + "\n"


def _as_json(scenario: Scenario, summaries: Sequence[Summary]) -> str:
    document = {
        "start": scenario.start.isoformat(),
        "end": scenario.end.isoformat(),
        "jobs": len(scenario.jobs),
        "notes": list(scenario.notes),
        "policies": [as_json(summary) for summary in summaries],
    }
    return json.dumps(document, indent=2) + "\n"
