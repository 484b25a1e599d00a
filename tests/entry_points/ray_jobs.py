"""Entry points that the tests of Ray run."""

from __future__ import annotations

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
