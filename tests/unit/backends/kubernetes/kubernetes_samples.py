"""Submissions, options and pods of no particular interest, for the tests of the Kubernetes backend."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from spillway.backends.kubernetes.options import KubernetesOptions
from spillway.model import Resources, Submission

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NAME = "sw-0123456789abcdef0123-task"


def submission(**changes: Any) -> Submission:
    return Submission(
        **{
            "key": "dag/run/task/-1/1",
            "pool": "gke",
            "token": 7,
            "entry_point": "training:train",
            "arguments": {},
            "resources": Resources(cpus=1.5, memory_gib=2),
            "store": "s3://bucket/checkpoints",
            "prefix": "dag/task",
            "grace_period": timedelta(seconds=25),
            **changes,
        }
    )


def options(**changes: Any) -> KubernetesOptions:
    return KubernetesOptions.model_validate({"image": "spillway:1", "namespace": "ml", **changes})


def job(*conditions: dict[str, Any], kind: str = "Job", **metadata: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {
            "name": NAME,
            "uid": "a",
            "creationTimestamp": "2026-11-20T11:00:00Z",
            **metadata,
        },
        "spec": {},
        "status": {"conditions": list(conditions)},
    }


def condition(
    name: str, reason: str = "", message: str = "", status: str = "True"
) -> dict[str, Any]:
    return {"type": name, "status": status, "reason": reason, "message": message}


def pod(
    phase: str = "Running",
    *conditions: dict[str, Any],
    state: dict[str, Any] | None = None,
    index: int = 0,
    status: dict[str, Any] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    labels = {"spillway/job": NAME, "batch.kubernetes.io/job-completion-index": str(index)}
    return {
        "metadata": {
            "name": f"{NAME}-{index}-x",
            "labels": labels,
            "creationTimestamp": "2026-11-20T11:59:00Z",
            **metadata,
        },
        "spec": {"containers": []},
        "status": {
            "phase": phase,
            "conditions": list(conditions),
            "containerStatuses": [{"name": "main", "state": state or {}}],
            **(status or {}),
        },
    }


def ended(code: int, at: str = "2026-11-20T11:59:30Z", **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "finishedAt": at, **more}}
