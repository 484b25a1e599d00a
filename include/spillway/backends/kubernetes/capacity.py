"""How many pods of a shape would start now: idle room on nodes, or what a queue of Kueue has left. Pure."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING

from kubernetes.utils import (  # pyright: ignore[reportMissingTypeStubs]  # it has no types
    parse_quantity as _parse_quantity,  # pyright: ignore[reportUnknownVariableType]
)

from spillway.backends.kubernetes.manifests import items, part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spillway.backends.kubernetes.manifests import Manifest
    from spillway.backends.kubernetes.options import Toleration

Quantities = dict[str, Decimal]


def pods_that_fit(
    nodes: Iterable[Manifest],
    pods: Iterable[Manifest],
    wanted: Mapping[str, str],
    *,
    node_labels: Mapping[str, str],
    tolerations: Sequence[Toleration],
) -> int:
    """Return how many more pods would start on these nodes now, beside those that run or wait on them."""
    taken: defaultdict[str, list[Manifest]] = defaultdict(list)
    for pod in pods:
        if pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
            taken[str(pod["spec"].get("nodeName", ""))].append(pod)
    return sum(
        _fits(_idle(node, taken[node["metadata"]["name"]]), wanted)
        for node in nodes
        if _takes_pods(node, node_labels, tolerations)
    )


def quota_left(queue: Manifest, wanted: Mapping[str, str]) -> int:
    """Return how many more pods a ClusterQueue of Kueue would admit now, of its own quota and without preempting anybody.

    Source: Kueue, "ClusterQueue", kueue.sigs.k8s.io/docs/concepts/cluster_queue.
    """
    reserved = {
        (flavor["name"], one["name"]): quantity(one.get("total", "0"))
        for flavor in queue.get("status", {}).get("flavorsReservation") or ()
        for one in flavor.get("resources") or ()
    }
    groups: list[int] = []
    for group in queue["spec"].get("resourceGroups") or ():
        covered = {
            name: asked for name, asked in wanted.items() if name in group["coveredResources"]
        }
        if not covered:
            continue
        flavors = [
            {
                one["name"]: quantity(one["nominalQuota"])
                - reserved.get((flavor["name"], one["name"]), Decimal(0))
                for one in flavor["resources"]
            }
            for flavor in group["flavors"]
        ]
        groups.append(sum(_fits(left, covered) for left in flavors))
    return min(groups, default=0)


def requests_of(pod: Manifest) -> Quantities:
    """Return what the scheduler reckons for a pod: its containers' sum, or its largest init container."""
    spec = part(pod, "spec")
    total = _sum(_asked(one) for one in items(spec, "containers"))
    for one in items(spec, "initContainers"):
        for name, asked in _asked(one).items():
            total[name] = max(total.get(name, Decimal(0)), asked)
    overhead = {name: quantity(text) for name, text in part(spec, "overhead").items()}
    return _sum([total, overhead])


def quantity(text: object) -> Decimal:
    """Return what a quantity such as `100m` or `4Gi` stands for."""
    parsed: Decimal = _parse_quantity(str(text))
    return parsed


def _fits(idle: Quantities, wanted: Mapping[str, str]) -> int:
    counts = [
        int(idle.get(name, Decimal(0)) // asked)
        for name, text in wanted.items()
        if (asked := quantity(text)) > 0
    ]
    if "pods" in idle:
        counts.append(int(idle["pods"]))
    return max(min(counts, default=0), 0)


def _idle(node: Manifest, pods: Sequence[Manifest]) -> Quantities:
    allocatable: Manifest = node.get("status", {}).get("allocatable") or {}
    idle = {name: quantity(text) for name, text in allocatable.items()}
    for name, used in _sum(map(requests_of, pods)).items():
        idle[name] = idle.get(name, Decimal(0)) - used
    if "pods" in idle:
        idle["pods"] -= len(pods)
    return idle


def _asked(container: Manifest) -> Quantities:
    resources = part(container, "resources")
    asked = {**part(resources, "limits"), **part(resources, "requests")}
    return {name: quantity(text) for name, text in asked.items()}


def _sum(parts: Iterable[Mapping[str, Decimal]]) -> Quantities:
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for one in parts:
        for name, amount in one.items():
            total[name] += amount
    return dict(total)


def _takes_pods(
    node: Manifest, labels: Mapping[str, str], tolerations: Sequence[Toleration]
) -> bool:
    spec: Manifest = node.get("spec") or {}
    has: Mapping[str, str] = node["metadata"].get("labels") or {}
    if spec.get("unschedulable") or any(has.get(name) != value for name, value in labels.items()):
        return False
    ready = [
        one["status"] == "True"
        for one in node.get("status", {}).get("conditions") or ()
        if one["type"] == "Ready"
    ]
    taints = [one for one in spec.get("taints") or () if one.get("effect") != "PreferNoSchedule"]
    return all(ready) and all(
        any(_tolerates(one, taint) for one in tolerations) for taint in taints
    )


def _tolerates(toleration: Toleration, taint: Manifest) -> bool:
    return (
        toleration.key in {None, taint["key"]}
        and toleration.effect in {None, taint.get("effect")}
        and (toleration.operator == "Exists" or toleration.value == taint.get("value"))
    )
