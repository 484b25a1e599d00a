"""Trainables without a model, for sweeps whose Ray is real."""

from __future__ import annotations

import time
from pathlib import Path


def falling(parameters, *, dataset, max_steps, seed):
    """Report a loss that is lower the larger x is; leave a mark in the folder `dataset` for each start."""
    with (Path(dataset) / "starts").open("a") as starts:
        starts.write(f"{parameters['x']}\n")
    for step in range(1, max_steps + 1):
        time.sleep(parameters.get("seconds", 0))
        yield {"step": step, "loss": (1 - parameters["x"]) / step}


def breaking(parameters, *, dataset, max_steps, seed):
    yield {"step": 1, "loss": 1.0}
    raise ArithmeticError(f"cannot take {parameters['x']}")
