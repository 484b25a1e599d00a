"""One job on recorded availability: the simulation against the evaluator of spot policies, which was written apart from it."""

from __future__ import annotations

import importlib
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import require
from sim.sim_worlds import START, job, pool, scenario
from spillway.catalog.value_tables import ValueTables
from spillway.model import Market
from spillway.sim.engine import simulate
from spillway.sim.outages import CapacityTrace, all_outages
from spillway.sim.production import Spillway
from spillway.sim.strategies import OnDemandOnly, Strategy, UniformProgress
from spillway.sim.summary import summarise

DATA = Path(os.environ.get("SPILLWAY_SPOT_DATA", Path(__file__).parents[3] / "shared"))
RECORDING = "ping-2022-10-26/us-west-2b_v100_1.json"
WORK_H, RESTART_S, ON_DEMAND, SPOT = 10, 180, 3.06, 0.9731


@pytest.fixture(scope="module")
def evaluator() -> Any:
    require((DATA / "spot_eval").is_dir(), f"no spot_eval below {DATA}: set SPILLWAY_SPOT_DATA")
    for folder in (DATA / "spot_eval", Path(__file__).parents[1] / "bench"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    return importlib.import_module("spoteval")


def ours(window: Any, deadline_h: float, strategy: Strategy) -> Any:
    tick = timedelta(seconds=window.tick_s)
    counts = [int(up) for up in window.available]
    trace = CapacityTrace(
        pool="spot",
        steps=tuple(
            (START + place * tick, count)
            for place, count in enumerate(counts)
            if place == 0 or count != counts[place - 1]
        ),
        end=START + len(counts) * tick,
    )
    pools = (
        pool("on_demand", Market.ON_DEMAND, str(ON_DEMAND)),
        pool("spot", Market.SPOT, str(SPOT), preemptions_per_hour=None),
    )
    one = job(
        "one",
        WORK_H,
        due=deadline_h,
        checkpoints=True,
        restart_overhead=timedelta(seconds=RESTART_S),
    )
    world = scenario(
        *pools,
        jobs=[one],
        days=len(counts) * tick / timedelta(days=1),
        outages=all_outages(pools, [trace], seed=0, start=START, end=trace.end, until=trace.end),
        counted=frozenset({"spot"}),
        look=tick,
        patience=timedelta(0),
    )
    return summarise(simulate(world, strategy))


@pytest.mark.parametrize("deadline_h", [11, 15])
@pytest.mark.parametrize("policy", ["on_demand", "spillway", "unhesitating", "uniform_progress"])
def test_one_job_costs_what_the_evaluator_says(
    evaluator: Any, policy: str, deadline_h: float
) -> None:
    theirs: dict[str, Any] = {
        "on_demand": lambda: importlib.import_module("policies").OnDemandOnly(),
        "spillway": lambda: importlib.import_module("spot_policy").SpillwayPolicy(),
        "unhesitating": lambda: importlib.import_module("spot_policy").Unhesitating(),
        "uniform_progress": lambda: importlib.import_module("policies").UniformProgress(),
    }
    mine: dict[str, Any] = {
        "on_demand": OnDemandOnly,
        "spillway": lambda: Spillway(ValueTables(), sharing=1.0),
        "unhesitating": lambda: Spillway(ValueTables(), sharing=1.0, hesitates=False),
        "uniform_progress": UniformProgress,
    }
    path = DATA / "traces" / RECORDING
    require(path.is_file(), f"no {path}: set SPILLWAY_SPOT_DATA")
    trace = evaluator.load_trace(path, one_means="available")
    terms = evaluator.Job(WORK_H * 3600, deadline_h * 3600, RESTART_S, 0.0, ON_DEMAND, SPOT)
    for offset in (30, 400):
        window = trace.window(offset, 200)
        said = evaluator.simulate(theirs[policy](), [window], terms)
        found = ours(window, deadline_h, mine[policy]())
        assert found.late == said.late == 0
        # The evaluator bills the last tick in full, the simulation to the second.
        tick_usd = ON_DEMAND * window.tick_s / 3600
        assert said.cost - tick_usd <= float(found.added_usd) <= said.cost + 1e-6
