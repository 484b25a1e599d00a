"""The random number generators a training step may draw from: Python's, NumPy's and torch's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Start every generator from `seed`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # code that a step calls may use the global generator
    torch.manual_seed(seed)


def capture() -> dict[str, Any]:
    """Return where every generator is; `restore` continues from there."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
    }


def restore(state: dict[str, Any]) -> None:
    """Put every generator where it was when `state` was captured."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
