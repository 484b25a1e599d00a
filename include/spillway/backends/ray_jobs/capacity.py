"""How many jobs of a shape would start now: arithmetic over what is idle on each node. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.backends.ray_jobs.options import RayOptions
    from spillway.model import Resources

Room = Mapping[str, float]
"""What one node has left, by Ray's name for it; memory in bytes."""

OLDEST: Final = timedelta(seconds=60)
"""How old the cluster's own count may be; it counts every 5 s."""


def rooms(answer: Any, now: datetime) -> list[Room] | None:
    """Return what each live node has left, of an answer to `GET /api/cluster_status`; None when Ray has not counted lately.

    The count is made by the process that watches the cluster's load. It is not made where somebody else does that, as
    with the second version of the autoscaler.
    """
    status: dict[str, Any] = answer["data"].get("clusterStatus") or {}
    counted_at = datetime.fromtimestamp(float(status.get("time") or 0), UTC)
    report: dict[str, Any] = status.get("loadMetricsReport") or {}
    usage: dict[str, dict[str, tuple[float, float]]] | None = report.get("usageByNode")
    if usage is None or now - counted_at > OLDEST:
        return None
    return [
        {name: float(total) - float(used) for name, (used, total) in node.items()}
        for node in usage.values()
    ]


def jobs_that_fit(idle: Iterable[Room], shape: Resources, options: RayOptions) -> int:
    """Return how many jobs of `shape` would start now."""
    wants = _wants(shape, options)
    return sum(_on_node(room, wants) for room in idle)


def _wants(shape: Resources, options: RayOptions) -> dict[str, float]:
    kind = options.accelerator_of(shape)
    wants = {
        "CPU": shape.cpus,
        "GPU": shape.accelerator_count * shape.accelerator_fraction,
        "memory": shape.memory_gib * (1 << 30),
        **options.resources,
        **({kind: 1e-3} if kind else {}),
    }
    return {_as_answered(name): quantity for name, quantity in wants.items() if quantity > 0}


def _as_answered(name: str) -> str:
    """Return a resource's name as the dashboard writes it: it takes every name for one of its own fields."""
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def _on_node(room: Room, wants: Mapping[str, float]) -> int:
    # Tenths of a CPU do not add up to a whole one.
    fits = [math.floor(room.get(name, 0.0) / want + 1e-6) for name, want in wants.items()]
    return max(min(fits, default=0), 0)
