"""The policy over time on recorded spot availability: what it pays, against Uniform Progress and the omniscient optimum.

Each campaign is run with rates learned from the other campaigns, so nothing is scored on what it was learned from. Needs the
evaluator and the recordings: folders `spot_eval` and `traces` below `SPILLWAY_SPOT_DATA`, by default `../shared`. A window starts
every `SPILLWAY_SPOT_STRIDE_HOURS`; the default, one window of each recording, is a smoke test, and 35 tells settings apart.
"""

from __future__ import annotations

import importlib
import os
import sys
from math import ceil
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from learn_availability import learn, load, needs
from measurement import Baseline, Measurement, NotHere

from spillway.placement.availability_prior import CAUTION

if TYPE_CHECKING:
    from spillway.placement.availability import AvailabilityModel

DATA = Path(os.environ.get("SPILLWAY_SPOT_DATA", Path(__file__).parents[3] / "shared"))
# (deadline in hours, restart in minutes), and the share of Uniform Progress's cost that one zone is to stay below.
BARS = {(52, 3): 0.935, (52, 12): 0.950, (70, 3): 0.960, (70, 12): 0.955}
SETTINGS = tuple(BARS)
# The multiple of the omniscient optimum that several zones are to stay below.
NINE_ZONES_BAR, THREE_ZONES_BAR = 1.04, 1.06
WORK_H, ON_DEMAND, SPOT = 48, 3.06, 0.9731
STRIDE_H = float(os.environ.get("SPILLWAY_SPOT_STRIDE_HOURS", "1000"))
# Of what is measured beside the bars, fewer windows tell enough.
WIDE_STRIDE_H = max(STRIDE_H, 200.0)
ZONES = {
    "nine zones": ("aws-2023-02-15", ()),
    "three zones of us-east-1": ("aws-2023-02-15", ("us-east-1c", "us-east-1d", "us-east-1f")),
    "three zones of us-west-2": ("aws-2023-02-15", ("us-west-2a", "us-west-2b", "us-west-2c")),
    "three zones of three regions": (
        "aws-2023-02-15",
        ("us-east-1a", "us-east-2b", "us-west-2c"),
    ),
    "three zones, August": ("aws-2023-08-03-4node", ()),
}
# What a start in another zone than the last adds to the restart: the reading of 350 GiB from afar, say.
ZONE_MOVE_MIN = 10
# Other jobs, drawn from a seed; each is run on some recordings, from an hour of its own on.
DRAWN_JOBS, DRAWN_RECORDINGS = 8, 5


def run() -> list[Measurement]:
    """Measure one zone at the four settings, several zones in several ways at the same, drawn jobs, and the CPU of a decision."""
    return Bench().run()


class Bench:
    def __init__(self) -> None:
        if not (DATA / "spot_eval").is_dir() or not (DATA / "traces").is_dir():
            raise NotHere(f"no spot_eval and traces below {DATA}; set SPILLWAY_SPOT_DATA")
        if str(DATA / "spot_eval") not in sys.path:
            sys.path.insert(0, str(DATA / "spot_eval"))
        self.evaluator = importlib.import_module("spoteval")
        self.windows = importlib.import_module("evaluate").windows
        self.optimum = importlib.import_module("offline_opt").offline_optimum
        self.uniform = importlib.import_module("policies").UniformProgress
        self.policies = importlib.import_module("spot_policy")
        folders = sorted(path for path in (DATA / "traces").iterdir() if path.is_dir())
        self.traces = {
            folder.name: {
                path.stem.removesuffix("_v100_1"): self.evaluator.load_trace(
                    path, one_means="available", need=needs(folder).get(path.name, 1)
                )
                for path in sorted(folder.glob("*.json"))
            }
            for folder in folders
        }
        recorded = {folder.name: load(folder) for folder in folders}
        self.models = {
            name: learn([one for other in recorded if other != name for one in recorded[other]])
            for name in recorded
        }
        self.known: dict[object, float] = {}
        self.late = 0
        self.decisions = 0
        self.cpu_s = 0.0

    def run(self) -> list[Measurement]:
        found = [one for setting in SETTINGS for one in self.one_zone(*setting)]
        found += [self.unhesitating(*setting) for setting in SETTINGS]
        for name in ZONES:
            found += [self.seeing_one_zone(name, *setting) for setting in SETTINGS]
            found += [self.several(name, *setting) for setting in SETTINGS]
            found += [self.several(name, *setting, move_min=ZONE_MOVE_MIN) for setting in SETTINGS]
            if all(zone.price is not None for zone in self.zones(name)[1]):
                found += [
                    self.several(name, *setting, recorded_prices=True) for setting in SETTINGS
                ]
        found += self.drawn()
        found.append(Measurement(name="late runs", value=self.late, unit="runs"))
        cpu = 1000 * self.cpu_s / self.decisions
        return [
            *found,
            Measurement(name="CPU of a tick, policy and evaluator", value=cpu, unit="ms"),
        ]

    def one_zone(self, deadline_h: float, restart_min: float) -> list[Measurement]:
        """Return the policy's cost and the least that was possible, against Uniform Progress."""
        job = self.job(deadline_h, restart_min)
        ours, theirs, best = [], [], []
        for campaign, traces in self.traces.items():
            make = self.left_out(campaign)
            for trace in traces.values():
                for window in self.windows([trace], job, STRIDE_H, 0):
                    ours.append(self.cost(make(), window, job))
                    theirs.append(self.evaluator.simulate(self.uniform(), window, job).cost)
                    best.append(self.least(window, job))
        bar = f"one zone (bar {BARS[deadline_h, restart_min]})"
        return [
            measured(what, job, costs, "Uniform Progress", theirs)
            for what, costs in ((bar, ours), ("one zone, omniscient optimum", best))
        ]

    def unhesitating(self, deadline_h: float, restart_min: float) -> Measurement:
        """Return the cost of following the policy's best however little it saves, against doing what production does."""
        job, campaign = self.job(deadline_h, restart_min), "ping-2022-10-26"
        make = self.left_out(campaign)
        best = self.left_out(campaign, self.policies.Unhesitating)
        windows = [
            window
            for trace in self.traces[campaign].values()
            for window in self.windows([trace], job, WIDE_STRIDE_H, 0)
        ]
        followed = [self.cost(make(), window, job) for window in windows]
        ours = [self.cost(best(), window, job) for window in windows]
        what = "one zone, October, without hesitation"
        return measured(what, job, ours, "as production does", followed)

    def seeing_one_zone(self, name: str, deadline_h: float, restart_min: float) -> Measurement:
        """Return the cost with several zones of which only the one sat in is seen, against the best of them alone."""
        job = self.job(deadline_h, restart_min)
        campaign, zones = self.zones(name)
        make, rules = self.left_out(campaign), self.evaluator.Rules(visibility="current")
        ours, alone = [], []
        for window in self.windows(zones, job, WIDE_STRIDE_H, 0):
            ours.append(self.cost(make(), window, job, rules))
            alone.append([self.cost(make(), [zone], job) for zone in window])
        best = [float(one) for one in np.array(alone)[:, np.mean(alone, axis=0).argmin()]]
        what = f"{name}, one seen (bar 1.0)"
        return measured(what, job, ours, "best zone alone", best)

    def several(
        self,
        name: str,
        deadline_h: float,
        restart_min: float,
        *,
        move_min: float = 0,
        recorded_prices: bool = False,
    ) -> Measurement:
        """Return the cost with several zones, against the least that was possible; for that, moves between zones take no longer."""
        job = self.job(deadline_h, restart_min, move_min=move_min)
        campaign, zones = self.zones(name)
        make, rules = self.left_out(campaign), self.evaluator.Rules(use_trace_price=recorded_prices)
        stride_h = WIDE_STRIDE_H if move_min or recorded_prices else STRIDE_H
        ours, best = [], []
        for window in self.windows(zones, job, stride_h, 0):
            ours.append(self.cost(make(), window, job, rules))
            best.append(self.least(window, job, recorded_prices=recorded_prices))
        bar = NINE_ZONES_BAR if name == "nine zones" else THREE_ZONES_BAR
        what = name if move_min or recorded_prices else f"{name} (bar {bar})"
        what += f", {move_min} min longer to another zone" if move_min else ""
        what += ", recorded prices" if recorded_prices else ""
        return measured(what, job, ours, "omniscient optimum", best)

    def drawn(self) -> list[Measurement]:
        """Return what jobs of other work, slack, restart and price ratio cost in one zone, against the least that was possible."""
        rng = np.random.default_rng(2024)
        series = [(name, trace) for name, found in self.traces.items() for trace in found.values()]
        measurements: list[Measurement] = []
        shares: dict[str, list[float]] = {"ours": [], "uniform": [], "best": []}
        for _ in range(DRAWN_JOBS):
            job = self.drawn_job(rng)
            ours, best = [], []
            for number in rng.choice(len(series), DRAWN_RECORDINGS, replace=False):
                campaign, trace = series[number]
                spare = len(trace) - ceil((job.deadline_s + 86400) / trace.tick_s)
                window = [trace.window(int(rng.integers(spare)))]
                ours.append(self.cost(self.left_out(campaign)(), window, job))
                best.append(self.least(window, job))
                uniform = self.evaluator.simulate(self.uniform(), window, job).cost
                on_demand = job.od_price * job.work_s / 3600
                for who, usd in (("ours", ours[-1]), ("best", best[-1]), ("uniform", uniform)):
                    shares[who].append(float(usd) / on_demand)
            what = f"one zone, drawn, spot at {job.spot_price / job.od_price:.2f} of on-demand"
            measurements.append(measured(what, job, ours, "omniscient optimum", best))
        mean = {who: float(np.mean(found)) for who, found in shares.items()}
        all_of = f"one zone, all drawn jobs ({len(shares['ours'])} runs)"
        return [
            *measurements,
            *(
                Measurement(
                    name=all_of,
                    value=mean["ours"],
                    unit="of on-demand",
                    baseline=Baseline(name=name, value=mean[who]),
                )
                for name, who in (("Uniform Progress", "uniform"), ("omniscient optimum", "best"))
            ),
        ]

    def drawn_job(self, rng: np.random.Generator) -> Any:
        """Return a job of 4 to 96 h with 5 to 100 % of that as slack, 1 to 20 min of restart, and spot at 0.1 to 0.8 of on-demand."""
        work_h = round(float(np.exp(rng.uniform(np.log(4), np.log(96)))))
        restart_min = round(float(np.exp(rng.uniform(0.0, np.log(20)))))
        # At least what two restarts and two of the longest looks take: with less there is nothing to decide.
        slack_h = max(work_h * rng.uniform(0.05, 1.0), (2 * restart_min + 20) / 60)
        deadline_s = round((work_h + slack_h) * 60) * 60
        ratio = round(float(rng.uniform(0.1, 0.8)), 2)
        return self.evaluator.Job(
            work_h * 3600, deadline_s, restart_min * 60, 0, ON_DEMAND, ratio * ON_DEMAND
        )

    def zones(self, name: str) -> tuple[str, list[Any]]:
        """Return the campaign of a set of zones, and their recordings."""
        campaign, chosen = ZONES[name]
        return campaign, [self.traces[campaign][zone] for zone in chosen or self.traces[campaign]]

    def least(self, window: Any, job: Any, *, recorded_prices: bool = False) -> float:
        """Return what the job costs when all is known beforehand."""
        prices = [zone.price if recorded_prices else job.spot_price for zone in window]
        return float(
            self.optimum(
                [zone.available for zone in window],
                tick_s=window[0].tick_s,
                work_s=job.work_s,
                deadline_s=job.deadline_s,
                restart_s=job.restart_s,
                spot_price=prices,
                od_price=job.od_price,
            )
        )

    def job(self, deadline_h: float, restart_min: float, *, move_min: float = 0) -> Any:
        seconds = (WORK_H * 3600, round(deadline_h * 3600), round(restart_min * 60), move_min * 60)
        return self.evaluator.Job(*seconds, ON_DEMAND, SPOT)

    def left_out(self, campaign: str, policy: Any = None) -> Any:
        """Return the policy, by default what production does, as it would be had `campaign` never been recorded."""
        learned = self.models[campaign]

        class LeftOut(policy or self.policies.SpillwayPolicy):  # type: ignore[misc]  # loaded at run time
            name = f"{(policy or self.policies.SpillwayPolicy).__name__} without {campaign}"

            def believed(self, zones: int) -> AvailabilityModel:
                return learned.lossier(CAUTION) if zones == 1 else learned

        return LeftOut

    def cost(self, policy: Any, window: Any, job: Any, rules: Any = None) -> float:
        """Return what the job costs; a run that is asked for again is not run again."""
        rules = rules or self.evaluator.Rules()
        needed = ceil(job.deadline_s / window[0].tick_s)
        seen = [zone.available[:needed].tobytes() for zone in window]
        paid = [None if zone.price is None else zone.price[:needed].tobytes() for zone in window]
        key = (policy.name, job, rules, *seen, *paid)
        if key not in self.known:
            began = process_time()
            result = self.evaluator.simulate(policy, window, job, rules)
            self.cpu_s += process_time() - began
            self.decisions += sum(result.ticks.values())
            self.late += result.late
            self.known[key] = float(result.cost)
        return self.known[key]


def measured(what: str, job: Any, ours: list[float], name: str, theirs: list[float]) -> Measurement:
    on_demand = job.od_price * job.work_s / 3600
    work, deadline, restart = job.work_s / 3600, job.deadline_s / 3600, job.restart_s / 60
    return Measurement(
        name=f"{what}, {work:g} h of work in {deadline:g} h, restart {restart:g} min ({len(ours)} runs)",
        value=float(np.mean(ours)) / on_demand,
        unit="of on-demand",
        baseline=Baseline(name=name, value=float(np.mean(theirs)) / on_demand),
    )
