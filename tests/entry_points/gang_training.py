"""Training over several processes, for the tests of launchers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spillway.runtime import Session

ROWS = 8


def sum_gradients(session: Session, steps: int, stop_after: int | None = None) -> dict[str, Any]:
    """Fit a line by gradient descent, the rows split over the ranks; return its parameters.

    All numbers are small whole ones, so sums are exact in any order, and any number of ranks gives the same line.
    """
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    assert (session.gang.rank, session.gang.nodes) == (rank, ranks)
    weight = torch.zeros(2, dtype=torch.float64)
    restored = session.restore()
    begun = restored.step if restored else 0
    if restored:
        weight = restored.state["weight"]
    for step in range(begun + 1, steps + 1):
        gradient = torch.zeros(2, dtype=torch.float64)
        for row in range(rank, ROWS, ranks):
            x = torch.tensor([1.0, float(row)], dtype=torch.float64)
            gradient += (weight @ x - (3 + 2 * row)) * x
        dist.all_reduce(gradient)
        weight = weight - gradient / 256
        session.progress(step, steps)
        if step == stop_after and rank == ranks - 1:
            os.kill(os.getpid(), 15)  # as the platform does to the machine that it takes back
        while step == stop_after and not session.preempted:
            session.should_checkpoint(step)
        if session.should_checkpoint(step):
            session.checkpoint(step, {"weight": weight})
    dist.destroy_process_group()
    return {"weight": weight.tolist(), "ranks": ranks, "begun": begun}


def count_nodes(session: Session) -> dict[str, Any]:
    """Run a task on each node of the gang's Ray cluster, and say how many nodes there are."""
    import ray

    ray.init(log_to_driver=False, logging_level="ERROR")
    nodes = [node for node in ray.nodes() if node["Alive"]]

    @ray.remote(num_cpus=1)
    def where() -> str:
        return str(ray.get_runtime_context().get_node_id())

    strategies = [
        ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        for node in nodes
    ]
    places = ray.get([where.options(scheduling_strategy=one).remote() for one in strategies])
    ray.shutdown()
    return {"nodes": len(nodes), "places": len(set(places)), "members": session.gang.nodes}
