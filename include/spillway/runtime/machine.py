"""What the numbers of a computation depend on beside its inputs: the kind of CPU, how many threads, torch itself."""

from __future__ import annotations

import platform

import torch


def describe() -> str:
    """Return the kind of CPU and the number of torch's threads; equal ones give equal bits."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {capability}, {torch.get_num_threads()} threads"
