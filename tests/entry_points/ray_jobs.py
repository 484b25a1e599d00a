"""Entry points that the tests of Ray run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spillway.runtime import Session


def count_nodes(session: Session) -> dict[str, Any]:
    """Return what the cluster has that this job was started on, by an address that it did not have to be told."""
    import ray

    ray.init(log_to_driver=False)
    try:
        return {"cpus": int(ray.cluster_resources()["CPU"])}
    finally:
        ray.shutdown()


def run_tasks(session: Session, folder: str, count: int) -> dict[str, Any]:
    """Run tasks on whatever nodes there are, each again when its node is lost; say where they ran."""
    import ray

    ray.init(log_to_driver=False)

    @ray.remote(num_cpus=1, max_retries=-1)
    def work(number: int) -> str:
        time.sleep(0.5)
        place = str(ray.get_runtime_context().get_node_id())
        (Path(folder) / f"done-{number}").write_text(place)
        return place

    left = [work.remote(number) for number in range(count)]
    places: list[str] = []
    while left:
        done, left = ray.wait(left, timeout=1.0)
        places += ray.get(done)
        session.progress(len(places), count)
        if session.preempted:
            session.checkpoint(len(places), {"places": places})
    return {"tasks": len(places), "nodes": len(set(places))}


def search(session: Session, folder: str, trials: int, steps: int) -> Any:
    """Run a sweep over whatever machines there are."""
    from spillway.workloads.sweep import sweep

    return sweep(
        session,
        dataset=folder,
        space={"x": {"uniform": [0, 1]}},
        num_samples=trials,
        max_steps=steps,
        metric="loss",
        scheduler="none",
        trainable="ray_jobs:count",
    )


def count(config: dict[str, Any], trial: Any) -> None:
    """Count to the end from the checkpoint, saving each step; leave a mark for it with the parent's process id.

    While there is a file `hold` it waits after its first step.
    """
    first = int((trial.restored / "step").read_text()) if trial.restored else 0
    for step in range(first + 1, trial.max_steps + 1):
        time.sleep(0.2)
        with (Path(trial.dataset) / "steps").open("a") as steps:
            steps.write(f"{trial.number} {step} {os.getppid()}\n")
        saved = trial.scratch()
        (saved / "step").write_text(str(step))
        trial.report(step, checkpoint=saved, loss=(1 - config["x"]) / step)
        while (Path(trial.dataset) / "hold").exists():
            time.sleep(0.1)
