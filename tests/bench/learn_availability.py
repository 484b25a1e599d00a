"""Learns the rates of `spillway.placement.availability_prior` from recorded availability: expectation maximisation.

    python tests/bench/learn_availability.py ../shared/traces > include/spillway/placement/availability_prior.py

Every recorded series is one pool. What is hidden is the regime at each look; what is seen is whether the pool's
availability, of known age, flips before the next look. Source: Baum, Petrie, Soules and Weiss, A maximization
technique, Annals of Mathematical Statistics, 1970.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spillway.placement.availability import AvailabilityModel, exponential

AGE_EDGES_HOURS = (0.0, 0.1, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0)
AGES = len(AGE_EDGES_HOURS)
REGIMES = 8
ROUNDS = 30
# What is believed before anything is seen: a regime holds for half a day, known for 30 hours; one flip per cell.
SWITCHES_PER_HOUR = 1 / 12
SWITCH_PRIOR_HOURS = 30.0
FLIP_PRIOR = 1.0


@dataclass(frozen=True)
class Series:
    """Looks at one pool: the cell seen at each (`available * AGES + age bucket`), and whether it flipped after it."""

    cells: np.ndarray
    flips: np.ndarray
    hours: float


def main() -> None:
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    series = [one for folder in folders for one in load(folder)]
    sys.stdout.write(as_module(learn(series), [folder.name for folder in folders]))


def load(folder: Path) -> list[Series]:
    """Return the series of one campaign: files with `data`, instances obtainable at each look."""
    found = []
    needed = needs(folder)
    for path in sorted(folder.glob("*.json")):
        recorded = json.loads(path.read_text())
        available = np.asarray(recorded["data"]) >= needed.get(path.name, 1)
        one = as_series(available, recorded["metadata"]["gap_seconds"] / 3600)
        if len(one.cells):
            found.append(one)
    return found


def needs(folder: Path) -> dict[str, int]:
    """Return how many instances count as available, by file name, as `manifest.json` beside the folder says."""
    manifest = folder.parent / "manifest.json"
    if not manifest.exists():
        return {}
    rows = [(Path(row["file"]), row.get("need", 1)) for row in json.loads(manifest.read_text())]
    return {path.name: need for path, need in rows if path.parent.name == folder.name}


def as_series(available: np.ndarray, hours: float) -> Series:
    """Return the looks after the first flip, where ages are known."""
    edges = np.flatnonzero(np.diff(available.astype(int))) + 1
    if not len(edges):
        return Series(np.empty(0, int), np.empty(0), hours)
    since = np.zeros(len(available), int)
    since[edges] = edges
    looks = np.arange(len(available)) - np.maximum.accumulate(since)
    age = np.searchsorted(AGE_EDGES_HOURS, (looks + 0.5) * hours, side="right") - 1
    cells = available * AGES + age
    flips = (available[1:] != available[:-1]).astype(float)
    return Series(cells[edges[0] : -1], flips[edges[0] :], hours)


def learn(series: list[Series], regimes: int = REGIMES, rounds: int = ROUNDS) -> AvailabilityModel:
    """Return the likeliest rates found from one fixed start."""
    flipped, seen = np.zeros(2 * AGES), np.zeros(2 * AGES)
    for one in series:
        np.add.at(flipped, one.cells, one.flips)
        np.add.at(seen, one.cells, one.hours)
    pooled = (flipped + 0.5) / (seen + 0.5)
    start = np.random.default_rng(0).normal(0, 0.8, (regimes, 2)).repeat(AGES, axis=1)
    rates = pooled * np.exp(start)
    switches = np.full((regimes, regimes), SWITCHES_PER_HOUR / max(regimes - 1, 1))
    np.fill_diagonal(switches, 0)
    looks = np.mean([one.hours for one in series])
    for _ in range(rounds):
        counted = [count(one, rates, switches) for one in series]
        flips, hours, moves = (sum(parts) for parts in zip(*counted, strict=True))
        rates = flip_rates(flips, hours, pooled, looks)
        np.fill_diagonal(moves, 0)
        stayed = hours.sum(axis=1, keepdims=True) + SWITCH_PRIOR_HOURS
        prior = SWITCH_PRIOR_HOURS * SWITCHES_PER_HOUR / max(regimes - 1, 1)
        switches = (moves + prior) / stayed
        np.fill_diagonal(switches, 0)
    return as_model(rates, switches)


def flip_rates(
    flips: np.ndarray, hours: np.ndarray, pooled: np.ndarray, looks: float
) -> np.ndarray:
    """Return rates per regime and cell: what was counted, drawn towards the pooled rates scaled to the regime."""
    by_state = (-1, 2, AGES)
    scale = flips.reshape(by_state).sum(2) + 1
    scale = scale / ((hours * pooled).reshape(by_state).sum(2) + 1)
    expected = pooled * scale.repeat(AGES, axis=1)
    # A look sees one flip where there may have been several.
    share = np.clip(flips / np.maximum(hours, 1e-9) * looks, 1e-6, 0.9)
    return (flips * -np.log1p(-share) / share + FLIP_PRIOR) / (hours + FLIP_PRIOR / expected)


def count(
    one: Series, rates: np.ndarray, switches: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return expected flips and hours per regime and cell, and switches between regimes: forward, then backward."""
    generator = switches - np.diag(switches.sum(axis=1))
    step = exponential(generator * one.hours)
    chance = np.clip(-np.expm1(-rates * one.hours), 1e-6, 1 - 1e-6)[:, one.cells].T
    likely = np.where(one.flips[:, None] > 0, chance, 1 - chance)
    looks, regimes = likely.shape
    forward = np.empty_like(likely)
    belief = np.full(regimes, 1 / regimes)
    for look in range(looks):
        belief = belief * likely[look]
        belief /= belief.sum()
        forward[look] = belief
        belief = belief @ step
    flips, hours = np.zeros_like(rates), np.zeros_like(rates)
    moves = np.zeros_like(switches)
    backward = np.ones(regimes)
    for look in range(looks - 1, -1, -1):
        regime = forward[look] * backward
        regime /= regime.sum()
        hours[:, one.cells[look]] += regime * one.hours
        flips[:, one.cells[look]] += regime * one.flips[look]
        if look:
            ahead = backward * likely[look]
            joint = forward[look - 1][:, None] * step * ahead
            moves += joint / joint.sum()
            backward = step @ ahead
            backward /= backward.sum()
    return flips, hours, moves


def as_model(rates: np.ndarray, switches: np.ndarray) -> AvailabilityModel:
    return AvailabilityModel(
        age_edges_hours=AGE_EDGES_HOURS,
        losses_per_hour=rounded(rates[:, AGES:]),
        returns_per_hour=rounded(rates[:, :AGES]),
        switches_per_hour=rounded(switches),
    )


def rounded(rates: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{rate:.3g}") for rate in row) for row in rates)


def as_module(model: AvailabilityModel, campaigns: list[str]) -> str:
    """Return the source of the module that ships the model."""

    def table(name: str, rows: tuple[tuple[float, ...], ...]) -> str:
        body = "".join(f"        {row},\n" for row in rows)
        return f"    {name}=(\n{body}    ),\n"

    return (
        f'"""What is believed of a spot pool before it was ever watched: rates learned from public traces.\n\n'
        f"Written by `tests/bench/learn_availability.py`; do not edit. {len(campaigns)} campaigns: {', '.join(campaigns)}.\n"
        f"Source: Wu et al., Can't Be Late, NSDI 2024, and the recordings published with it and with SkyPilot.\n"
        f'"""\n\n'
        f"from __future__ import annotations\n\n"
        f"from typing import Final\n\n"
        f"from spillway.placement.availability import AvailabilityModel\n\n"
        f"LEARNED: Final = AvailabilityModel(\n"
        f"    age_edges_hours={model.age_edges_hours},\n"
        + table("losses_per_hour", model.losses_per_hour)
        + table("returns_per_hour", model.returns_per_hour)
        + table("switches_per_hour", model.switches_per_hour)
        + ")\n\n"
        "# A lone pool is taken to be lost twice as often as learned. Recordings of other months have stretches that no rate\n"
        "# learned here foresees, and a policy that expects more losses keeps slack for them. Chosen from eight pairs of factors for\n"
        "# losses and returns, on campaigns left out of the learning, and checked on windows at another offset: not blind.\n"
        "# Among several pools the others are the reserve, and it only costs.\n"
        "CAUTION: Final = 2.0\n\n"
        "ALONE: Final = LEARNED.lossier(CAUTION)\n\n\n"
        "def prior(pools: int) -> AvailabilityModel:\n"
        '    """Return what is believed of each of `pools` spot pools that a job may use."""\n'
        "    return ALONE if pools <= 1 else LEARNED\n"
    )


if __name__ == "__main__":
    main()
