"""The random number generators a training step may draw from: Python's, NumPy's, torch's and its accelerator's."""

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
    accelerator = _accelerator()
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        **({} if accelerator is None else {"accelerator": accelerator.get_rng_state()}),
    }


def restore(state: dict[str, Any]) -> None:
    """Put every generator where it was when `state` was captured; one that is not here is left out."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    accelerator = _accelerator()
    if accelerator is not None and "accelerator" in state:
        accelerator.set_rng_state(state["accelerator"])


def _accelerator() -> Any:
    """Return torch's module of the accelerator that this process is at, or None: dropout there draws from its generator."""
    device = torch.accelerator.current_accelerator(check_available=True)
    return None if device is None else torch.get_device_module(device)
