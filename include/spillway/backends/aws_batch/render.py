"""What is sent to AWS Batch: the job definition, found again by its content, and the job. All pure."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.aws import naming, shapes
from spillway.errors import CapacityError, RejectedError
from spillway.model import Market
from spillway.model.codec import encode_json

if TYPE_CHECKING:
    from spillway.backends.aws_batch.options import BatchOptions
    from spillway.model import Submission

NAME: Final = "aws_batch"

MAX_OVERRIDES: Final = 8192
"""Characters of all overrides of a job together, as JSON.

Source: Amazon ECS, `TaskOverride.containerOverrides`, docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html.
"""


def definition(submission: Submission, options: BatchOptions) -> dict[str, Any]:
    """Return the request that registers what the job is an instance of; its name is a digest of the rest."""
    container = _container(submission, options)
    content: dict[str, Any] = {
        "retryStrategy": {"attempts": 1},  # going on is ours, and counts
        "propagateTags": True,
    }
    if submission.nodes == 1:
        content |= {"type": "container", "containerProperties": container}
    else:
        ranges = [{"targetNodes": f"0:{submission.nodes - 1}", "container": container}]
        content |= {
            "type": "multinode",
            "nodeProperties": {
                "numNodes": submission.nodes,
                "mainNode": 0,
                "nodeRangeProperties": ranges,
            },
        }
    if options.time_limit is not None:
        content["timeout"] = {
            "attemptDurationSeconds": math.ceil(options.time_limit.total_seconds())
        }
    if options.share_identifier is not None:
        content["schedulingPriority"] = options.scheduling_priority
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return {"jobDefinitionName": f"spillway-{digest}", "tags": dict(options.tags), **content}


def job(submission: Submission, options: BatchOptions, definition_arn: str) -> dict[str, Any]:
    """Return the request that starts the job; it holds no secret.

    Raises:
        RejectedError: The submission is too large to send.
        CapacityError: It is a gang on spot instances, which Batch does not start.
    """
    if submission.nodes > 1 and submission.market is Market.SPOT:
        # Source: AWS Batch, "Compute environment considerations for MNP", docs.aws.amazon.com/batch/latest/userguide/mnp-ce.html
        raise CapacityError(
            "AWS Batch runs no jobs of several nodes on spot instances; another pool may do",
            backend=NAME,
            key=submission.key,
        )
    overrides = {"environment": _pairs({"SPILLWAY_SUBMISSION": encode_json(submission).decode()})}
    _check_size(overrides, submission.key)
    request: dict[str, Any] = {
        "jobName": naming.job_name(submission.pool, submission.key),
        "jobQueue": options.queue_of(submission.market),
        "jobDefinition": definition_arn,
        "tags": naming.tags(submission.pool, submission.key, options.tags),
        "propagateTags": True,
    }
    if options.share_identifier is not None:
        request["shareIdentifier"] = options.share_identifier
    if submission.nodes == 1:
        return {**request, "containerOverrides": overrides}
    everywhere = {
        "targetNodes": f"0:{submission.nodes - 1}",
        "containerOverrides": overrides,
    }
    return {**request, "nodeOverrides": {"nodePropertyOverrides": [everywhere]}}


def _container(submission: Submission, options: BatchOptions) -> dict[str, Any]:
    wanted = {
        "image": options.image,
        "command": [options.python, "-m", "spillway.runtime"],
        "jobRoleArn": options.job_role,
        "executionRoleArn": options.execution_role,
        "resourceRequirements": _resources(submission, options),
        "environment": _pairs({"PYTHONUNBUFFERED": "1", **options.environment}),
        "secrets": [
            {"name": name, "valueFrom": arn} for name, arn in sorted(options.secrets.items())
        ],
        "linuxParameters": _linux(submission, options),
        "ulimits": _ulimits(submission, options),
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {"awslogs-group": options.log_group},
        },
    }
    return {name: value for name, value in wanted.items() if value}


def _resources(submission: Submission, options: BatchOptions) -> list[dict[str, str]]:
    wanted = {
        "VCPU": max(math.ceil(submission.resources.cpus), 1),
        "MEMORY": max(math.ceil(submission.resources.memory_gib * 1024), 4),  # MiB; 4 is the least
        "GPU": options.gpus(submission.resources),
    }
    return [{"type": kind, "value": str(count)} for kind, count in wanted.items() if count]


def _linux(submission: Submission, options: BatchOptions) -> dict[str, Any]:
    devices = shapes.neuron_devices(options.neuron_devices(submission.resources))
    devices += shapes.efa_devices(_efa(submission, options))
    # Docker's own init passes signals on, and collects children that a task leaves behind.
    wanted: dict[str, Any] = {"initProcessEnabled": True}
    if devices:
        wanted["devices"] = [
            {"hostPath": path, "containerPath": path, "permissions": ["READ", "WRITE"]}
            for path in devices
        ]
    if options.shared_memory_mib is not None:
        wanted["sharedMemorySize"] = options.shared_memory_mib
    return wanted


def _ulimits(submission: Submission, options: BatchOptions) -> list[dict[str, Any]]:
    unlimited = {"name": "memlock", "softLimit": -1, "hardLimit": -1}  # for memory that EFA pins
    return [unlimited] if _efa(submission, options) else []


def _efa(submission: Submission, options: BatchOptions) -> int:
    wanted = submission.nodes > 1 if options.efa is None else options.efa
    return options.shape.efa_interfaces if wanted and options.shape is not None else 0


def _pairs(variables: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in sorted(variables.items())]


def _check_size(overrides: dict[str, Any], key: str) -> None:
    size = len(json.dumps(overrides))
    if size > MAX_OVERRIDES:
        raise RejectedError(
            f"the arguments of {key} are too large for AWS Batch ({size} characters, {MAX_OVERRIDES} are allowed); write"
            " them to a file and pass where it is",
            backend=NAME,
            key=key,
        )
