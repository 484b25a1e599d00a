"""One way of saving a training's state, measured in a process of its own: `checkpoint_ways.py WAY GIGABYTES FOLDER`.

Prints JSON: for each save the stall and the time to durable, in seconds, and the extra memory at the worst, in bytes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import warnings
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemWriter

from spillway.runtime import Session

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[str, Any]
SAVES = 4
"""The first allocates memory, and is left out."""
TINY: State = {
    "model": {"weight": torch.ones(8)},
    "optimizer": {"state": {}, "param_groups": []},
}
"""Saved before anything is measured, so that imports are not."""
QUIET_SECONDS = 1.0
LAYER_ITEMS = 4 << 20
CHUNK_BYTES = 16 << 20


class Training:
    """Steps of real work beside a state as large as asked for, which is what Adam keeps of a model."""

    def __init__(self, gigabytes: float) -> None:
        layers = max(1, round(gigabytes * 1e9 / (3 * 4 * LAYER_ITEMS)))
        self.model = {f"layer{i}.weight": torch.randn(LAYER_ITEMS) for i in range(layers)}
        self.moments = {
            i: {
                "step": torch.tensor(1.0),
                "exp_avg": torch.randn(LAYER_ITEMS),
                "exp_avg_sq": torch.rand(LAYER_ITEMS),
            }
            for i in range(layers)
        }
        self._matrix = torch.randn(1024, 1024)
        self.size = 3 * 4 * LAYER_ITEMS * layers

    def state(self) -> State:
        groups = [{"lr": 1e-3, "params": list(self.moments)}]
        return {
            "model": self.model,
            "optimizer": {"state": self.moments, "param_groups": groups},
        }

    def step(self) -> float:
        """Work for some ten milliseconds and return how long it took."""
        began = perf_counter()
        for _ in range(3):
            self._matrix = torch.nn.functional.normalize(self._matrix @ self._matrix)
        return perf_counter() - began

    def steps_for(self, seconds: float) -> float:
        """Work so long and return what a step took, on average."""
        until = perf_counter() + seconds
        took = [self.step()]
        while perf_counter() < until:
            took.append(self.step())
        return fmean(took)


class Spillway:
    """What a job does: save, go on, and hear with some step's progress that it is durable."""

    def __init__(self, folder: Path) -> None:
        self._session = Session.local(folder)
        self._session.restore()
        self._step = 0

    def save(self, state: State) -> None:
        self._step += 10_000
        self._session.checkpoint(self._step, state)

    def is_durable(self) -> bool:
        self._session.progress(self._step)
        return self._session.heartbeat.checkpoint_step == self._step


class Synchronous:
    """Returns when it is durable."""

    def __init__(self, folder: Path, save: Callable[[State, Path], None]) -> None:
        self._path = folder / "saved"
        self._save = save

    def save(self, state: State) -> None:
        self._save(state, self._path)

    def is_durable(self) -> bool:
        return True


class DcpAsync:
    """The asynchronous save of torch.distributed.checkpoint, as it comes."""

    def __init__(self, folder: Path) -> None:
        dist.init_process_group(
            "gloo", store=dist.FileStore(str(folder / "rendezvous"), 1), rank=0, world_size=1
        )
        self._path = folder / "saved"

    def save(self, state: State) -> None:
        self._future = dcp.async_save(state, storage_writer=writer(self._path))

    def is_durable(self) -> bool:
        return bool(self._future.done())


def torch_save(state: State, path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def dcp_save(state: State, path: Path) -> None:
    dcp.save(state, storage_writer=writer(path), no_dist=True)


def writer(path: Path) -> FileSystemWriter:
    return FileSystemWriter(path, thread_count=2, sync_files=True)


def raw_write(state: State, path: Path) -> None:
    """Write the same bytes through the page cache."""
    tensors = list(state["model"].values())
    for moments in state["optimizer"]["state"].values():
        tensors += [moments["exp_avg"], moments["exp_avg_sq"]]
    with path.open("wb", buffering=0) as file:
        for tensor in tensors:
            view = tensor.numpy().data.cast("B")
            for begin in range(0, len(view), CHUNK_BYTES):
                file.write(view[begin : begin + CHUNK_BYTES])
        os.fsync(file.fileno())


WAYS: dict[str, Callable[[Path], Any]] = {
    "spillway": Spillway,
    "torch.save": lambda folder: Synchronous(folder, torch_save),
    "raw write": lambda folder: Synchronous(folder, raw_write),
    "DCP": lambda folder: Synchronous(folder, dcp_save),
    "DCP async": DcpAsync,
}


def measure(training: Training, way: Any, state: State, folder: Path) -> tuple[float, float, float]:
    """Return time blocked, that and what the steps beside the save took longer, and time to durable."""
    for old in folder.glob("saved*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    os.sync()
    quiet = training.steps_for(QUIET_SECONDS)
    began = perf_counter()
    way.save(state)
    stall = blocked = perf_counter() - began
    while not way.is_durable():
        stall += training.step() - quiet
    return blocked, stall, perf_counter() - began


def resident(field: str) -> int:
    """Return a size of this process, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    warnings.simplefilter("ignore")
    name, gigabytes, folder = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    torch.manual_seed(1)
    training = Training(gigabytes)
    training.steps_for(QUIET_SECONDS)
    way = WAYS[name](folder)
    measure(training, way, TINY, folder)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    saves = [measure(training, way, training.state(), folder) for _ in range(SAVES)][1:]
    said = {
        "blocked": [blocked for blocked, _, _ in saves],
        "stalls": [stall for _, stall, _ in saves],
        "durables": [durable for _, _, durable in saves],
        "extra": [max(0, resident("VmHWM") - before)],
        "size": [training.size],
    }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
