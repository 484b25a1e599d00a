from __future__ import annotations

from typing import Any

import pytest

from spillway.backends.kubernetes.capacity import pods_that_fit, quota_left, requests_of
from spillway.backends.kubernetes.options import Toleration

WANTED = {"cpu": "2000m", "memory": "4096Mi", "nvidia.com/gpu": "1"}


def node(
    name: str = "a", taints: list[dict[str, str]] | None = None, **changes: Any
) -> dict[str, Any]:
    allocatable = {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "4", "pods": "110"}
    ready = changes.pop("ready", "True")
    return {
        "metadata": {"name": name, "labels": {"pool": "spot"}},
        "spec": {"taints": taints or [], **changes.pop("spec", {})},
        "status": {
            "allocatable": {**allocatable, **changes},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def pod(phase: str = "Running", node_name: str | None = "a", **requests: str) -> dict[str, Any]:
    container = {"resources": {"requests": requests}}
    spec: dict[str, Any] = {"containers": [container]}
    if node_name:
        spec["nodeName"] = node_name
    return {"spec": spec, "status": {"phase": phase}}


def fits(nodes: list[dict[str, Any]], *pods: dict[str, Any], **how: Any) -> int:
    how = {"node_labels": {}, "tolerations": (), **how}
    return pods_that_fit(nodes, pods, WANTED, **how)


def test_room_is_what_the_scarcest_resource_leaves() -> None:
    assert fits([node()]) == 4
    assert fits([node(cpu="3")]) == 1
    assert fits([node(memory="9Gi")]) == 2
    assert fits([node(pods="2")]) == 2
    assert fits([node(), node("b")]) == 8


def test_room_is_without_what_pods_hold_until_they_end() -> None:
    held = pod(cpu="5")
    assert fits([node()], held) == 1
    assert fits([node()], pod("Succeeded", cpu="5")) == 4
    assert fits([node()], pod("Pending", node_name=None, cpu="5")) == 4


def test_a_node_that_takes_no_pods_has_no_room() -> None:
    assert fits([node(spec={"unschedulable": True})]) == 0
    assert fits([node(ready="Unknown")]) == 0
    assert fits([node()], node_labels={"pool": "reserved"}) == 0


@pytest.mark.parametrize(
    ("toleration", "free"),
    [
        ({}, 4),
        ({"key": "spot"}, 4),
        ({"key": "spot", "operator": "Equal", "value": "true"}, 4),
        ({"key": "spot", "operator": "Equal", "value": "no"}, 0),
        ({"key": "other"}, 0),
        ({"key": "spot", "effect": "NoExecute"}, 0),
    ],
    ids=str,
)
def test_a_taint_has_to_be_tolerated(toleration: dict[str, str], free: int) -> None:
    tainted = node(taints=[{"key": "spot", "value": "true", "effect": "NoSchedule"}])
    assert fits([tainted]) == 0
    assert fits([tainted], tolerations=[Toleration.model_validate(toleration)]) == free


def test_a_pod_holds_its_containers_or_its_largest_start() -> None:
    one = {"resources": {"requests": {"cpu": "500m"}, "limits": {"nvidia.com/gpu": "1"}}}
    starts = [{"resources": {"requests": {"cpu": "3"}}}]
    spec = {"containers": [one, one], "initContainers": starts, "overhead": {"memory": "1Mi"}}
    held = requests_of({"spec": spec})
    assert (held["cpu"], held["nvidia.com/gpu"], held["memory"]) == (3, 2, 1 << 20)


def test_a_queue_has_what_its_flavors_have_left() -> None:
    flavors = [
        {
            "name": name,
            "resources": [
                {"name": "cpu", "nominalQuota": "8"},
                {"name": "nvidia.com/gpu", "nominalQuota": 4},
            ],
        }
        for name in ("spot", "reserved")
    ]
    memory = {"name": "all", "resources": [{"name": "memory", "nominalQuota": "1Ti"}]}
    queue = {
        "spec": {
            "resourceGroups": [
                {"coveredResources": ["cpu", "nvidia.com/gpu"], "flavors": flavors},
                {"coveredResources": ["memory"], "flavors": [memory]},
            ]
        },
        "status": {
            "flavorsReservation": [
                {"name": "spot", "resources": [{"name": "cpu", "total": "5"}]},
                {"name": "reserved", "resources": [{"name": "nvidia.com/gpu", "total": "4"}]},
            ]
        },
    }
    assert quota_left(queue, WANTED) == 1
    assert quota_left({"spec": {}}, WANTED) == 0
