"""What saving costs a training: stall, time to durable and memory, against torch's own ways and a bare write.

A stall is the time the loop is blocked plus what the steps beside the save took longer, by the median of several saves with
real steps between; every way runs in a process of its own, and all in the same run, so that their ratios can be trusted
where the times cannot. The aim at 2 GB: a stall of at most 5 % of `torch.save`, durable no later than a buffered
write with fsync, and at most one copy of the state in memory, allocated once.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measurement import Baseline, Measurement, NotHere

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"  # on a disk, where the system's temporary folder may be memory
GIGABYTES = (0.5, 2.0)
WAYS = ("spillway", "torch.save", "raw write", "DCP", "DCP async")
ROUNDS = 2
TIMEOUT_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one way costs."""

    stall_ms: float
    durable_s: float
    extra: float


def run() -> list[Measurement]:
    """Measure every way at each size."""
    BUILD.mkdir(exist_ok=True)
    if shutil.disk_usage(BUILD).free < 8e9 * max(GIGABYTES):
        raise NotHere("the disk has too little room")
    return [one for gigabytes in GIGABYTES for one in compare(gigabytes)]


def compare(gigabytes: float) -> list[Measurement]:
    costs = measure(gigabytes)
    saving, raw = costs["torch.save"], costs["raw write"]
    size = f"{gigabytes:g} GB"
    stall = Baseline(name="torch.save and fsync", value=saving.stall_ms)
    durable = Baseline(name="buffered write and fsync", value=raw.durable_s)
    memory = Baseline(name="the state", value=1.0)
    return [
        *(
            Measurement(name=f"{size}: stall, {way}", value=c.stall_ms, unit="ms", baseline=stall)
            for way, c in costs.items()
        ),
        *(
            Measurement(
                name=f"{size}: durable after, {way}", value=c.durable_s, unit="s", baseline=durable
            )
            for way, c in costs.items()
        ),
        *(
            Measurement(
                name=f"{size}: extra memory, {way}", value=c.extra, unit="states", baseline=memory
            )
            for way, c in costs.items()
        ),
    ]


def measure(gigabytes: float) -> dict[str, Cost]:
    """Return the cost of each way, the median over all its saves; ways take turns, as the machine is not always the same."""
    said: dict[str, list[dict[str, list[float]]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            said[way].append(measure_once(way, gigabytes))
    return {
        way: Cost(
            # What the steps lost is the difference of two noisy times; what the loop was blocked is not.
            stall_ms=1000 * max(all_median(rounds, "stalls"), all_median(rounds, "blocked")),
            durable_s=all_median(rounds, "durables"),
            extra=max(one["extra"][0] / one["size"][0] for one in rounds),
        )
        for way, rounds in said.items()
    }


def all_median(rounds: list[dict[str, list[float]]], what: str) -> float:
    return median(value for one in rounds for value in one[what])


def measure_once(way: str, gigabytes: float) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        command = [sys.executable, str(HERE / "checkpoint_ways.py"), way, str(gigabytes), folder]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
        )
    if done.returncode:
        raise RuntimeError(f"{way} did not work:\n{done.stderr[-2000:]}")
    measured: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return measured
