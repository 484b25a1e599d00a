"""What each option of the shipped training is worth: time a step, memory, time waited for data. `docs/training.md` explains.

Each runs in a process of its own, so that memory is its own; the recipe is the same but for the option. Computing is told in CPU
time, which neighbours on the machine disturb little, and waiting in wall time.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

from measurement import Baseline, Measurement

STEPS = 6
WARM_UP = 2
# Wide batches of long sequences: what is kept for the gradients is most of the memory.
SHAPE = {"width": 128, "layers": 8, "heads": 4, "context": 128, "batch": 16}
QUICK = {"width": 32, "layers": 2, "steps": 40}  # steps about as long as a read
VOCABULARY = 512
READ_SECONDS = 0.05
"""A read from an object store, as it is often seen; that of a local file is too quick to be worth reading ahead."""

PLAIN = "float32, batch in one part"


def run() -> list[Measurement]:
    """Measure each option beside the plain run."""
    plain = measured()
    measurements = [
        Measurement(name="training step, plain", value=plain["cpu_ms"], unit="CPU ms"),
        Measurement(name="memory of training, plain", value=plain["mib"], unit="MiB"),
        Measurement(name="CPU utilisation, plain", value=plain["cpu"], unit="%"),
    ]
    for name, option in (
        ("gradient checkpointing", {"recompute": True}),
        ("accumulation in 4 parts", {"accumulation": 4}),
        ("bfloat16", {"precision": "bfloat16"}),
    ):
        seen = measured(**option)
        measurements += [
            compared(f"training step, {name}", "CPU ms", seen["cpu_ms"], plain["cpu_ms"], PLAIN),
            compared(f"memory of training, {name}", "MiB", seen["mib"], plain["mib"], PLAIN),
        ]
    slow = measured(read=READ_SECONDS, **QUICK)
    ahead = measured(read=READ_SECONDS, prefetch=4, **QUICK)
    reads = f"training step, reads of {READ_SECONDS * 1000:.0f} ms"
    measurements.append(
        compared(f"{reads}, prefetch 4", "ms", ahead["ms"], slow["ms"], "no prefetch")
    )
    measurements.append(
        compared("waiting for data, prefetch 4", "%", ahead["data"], slow["data"], "no prefetch")
    )
    return measurements


def compared(name: str, unit: str, value: float, baseline: float, than: str) -> Measurement:
    return Measurement(
        name=name, value=value, unit=unit, baseline=Baseline(name=than, value=baseline)
    )


def measured(**option: Any) -> dict[str, float]:
    """Return what one run of this file as a program printed."""
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(option)], check=True, capture_output=True, text=True
    )
    seen: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seen


def train(*, read: float = 0.0, prefetch: int = 0, recompute: bool = False, **recipe: Any) -> None:
    """Do a few steps and print the median step, the memory they took, and the shares."""
    import numpy as np

    from spillway.workloads.dataset import Dataset, DatasetManifest
    from spillway.workloads.recipe import make_recipe
    from spillway.workloads.trainer import Trainer, be_repeatable
    from spillway.workloads.utilisation import DATA, UsageMeter

    class SlowlyRead(Trainer):
        def _draw(self, step: int) -> Any:
            time.sleep(read)
            return super()._draw(step)

    be_repeatable(threads=1)
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=50_000).astype(np.uint16)
    manifest = DatasetManifest(
        dataset="bench",
        vocabulary=VOCABULARY,
        tokenizer_checksum="",
        documents=1,
        train_tokens=len(tokens),
        validation_tokens=len(tokens),
        unigram_loss=0.0,
        bigram_loss=0.0,
        files=(),
    )
    trainer = SlowlyRead(
        Dataset(manifest=manifest, train=(tokens,), validation=(tokens,)),
        make_recipe({**SHAPE, "steps": WARM_UP + STEPS, **recipe}),
        prefetch=prefetch,
        recompute=recompute,
    )
    before, meter = _peak_mib(), UsageMeter(threads=1)
    wall: list[float] = []
    cpu: list[float] = []
    while not trainer.is_done:
        began, cpu_began = time.perf_counter(), time.process_time()
        with meter.held_up_by(DATA):
            batch = trainer.next_batch()
        trainer.learn(batch)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    usage = meter.usage()
    seen = {
        "ms": median(wall[WARM_UP:]) * 1000,
        "cpu_ms": median(cpu[WARM_UP:]) * 1000,
        "mib": _peak_mib() - before,
        "cpu": usage.cpu * 100,
        "data": usage.waiting_for_data * 100,
    }
    sys.stdout.write(json.dumps(seen) + "\n")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    train(**json.loads(sys.argv[1]))
