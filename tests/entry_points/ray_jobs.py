"""Entry points that the tests of Ray run."""

from __future__ import annotations

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
