"""What is applied: a Job, a JobSet or a RayJob, and a gang's Service. All pure."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from spillway.backends.kubernetes import naming
from spillway.backends.kubernetes.failures import NAME
from spillway.backends.kubernetes.kinds import KINDS, SERVICES
from spillway.backends.kubernetes.pod_template import (
    CONTAINER,
    command_of,
    metadata,
    pod_metadata,
    submission_text,
    template,
)
from spillway.errors import RejectedError
from spillway.model import Launcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.backends.kubernetes.manifests import Manifest
    from spillway.backends.kubernetes.options import KubernetesOptions
    from spillway.model import Submission


REPLICATED_JOB: Final = "w"


# The pod fails the Job whatever ended it: a task goes on from its checkpoint in another lease, on the pool that is then the
# cheapest, and `Ignore` would start it again in this one. The first rule that matches is named in the Job's message.
# Source: Kubernetes, "Pod failure policy", kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy.
_NOT_IN: Final = "NotIn"  # codespell:ignore notin
_FAILURE_POLICY: Final[Manifest] = {
    "rules": [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": _NOT_IN, "values": [0]},
        },
    ]
}


# Minor versions of Kubernetes 1 since which these are there without a feature gate.
# Source: Kubernetes, "Feature Gates (removed)" and "Feature Gates",
# kubernetes.io/docs/reference/command-line-tools-reference/feature-gates-removed.
FAILURE_POLICY_SINCE: Final = 26
INDEXED_SINCE: Final = 22
SUSPEND_SINCE: Final = 22


def render(
    submission: Submission, options: KubernetesOptions, *, minor: int | None = None
) -> Manifest:
    """Return the object for the submission; it holds no secret.

    Args:
        submission: What is to run.
        options: Of the pool.
        minor: Which Kubernetes 1 it is for, such as 30; None for a new one. To an old one nothing is sent that it does not know.

    Raises:
        RejectedError: The submission is too large for an environment variable, or the cluster is too old for it.
    """
    kind = KINDS[options.kind]
    _check_version(submission, options, minor)
    made: Manifest = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": metadata(submission, options),
        "spec": _SPECS[options.kind](submission, options),
    }
    if options.kind == "job" and minor is not None:
        _leave_out_what_is_newer(made["spec"], minor)
    if options.queue is not None:
        made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = options.queue
        made["spec"]["suspend"] = True  # until Kueue admits it
    return made


def render_service(submission: Submission, options: KubernetesOptions, owner_uid: str) -> Manifest:
    """Return the headless Service that gives the pods of a gang their names; it goes when the Job goes."""
    kind, name = KINDS["job"], naming.object_name(submission.pool, submission.key)
    owner = {"apiVersion": kind.api_version, "kind": kind.name, "name": name, "uid": owner_uid}
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.name,
        "metadata": {**metadata(submission, options), "ownerReferences": [owner]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {naming.JOB: name},
        },
    }


def needs_service(submission: Submission, options: KubernetesOptions) -> bool:
    """Return whether the pods meet through a Service of ours."""
    return submission.nodes > 1 and options.kind == "job"


def _check_version(submission: Submission, options: KubernetesOptions, minor: int | None) -> None:
    needs = {
        "a gang of `kind: job`": INDEXED_SINCE if needs_service(submission, options) else 0,
        "the option queue": SUSPEND_SINCE if options.queue is not None else 0,
    }
    for what, since in needs.items():
        if minor is not None and minor < since:
            raise RejectedError(
                f"{what} needs Kubernetes 1.{since} or later, and the cluster is 1.{minor}; another pool may do",
                backend=NAME,
                key=submission.key,
            )


def _leave_out_what_is_newer(spec: Manifest, minor: int) -> None:
    """Leave out what an old server would refuse; a Job of one pod ends the same way without it."""
    if minor < FAILURE_POLICY_SINCE:
        del spec["podFailurePolicy"]
    if minor < INDEXED_SINCE:
        del spec["completionMode"]


def _job(submission: Submission, options: KubernetesOptions) -> Manifest:
    return {
        **_one_run(submission, options, _gang_of_job(submission)),
        "ttlSecondsAfterFinished": int(options.keep_finished.total_seconds()),
    }


def _one_run(
    submission: Submission, options: KubernetesOptions, gang: Mapping[str, str]
) -> Manifest:
    """Return the specification of a Job whose pods run once, one on each node."""
    return {
        "completionMode": "Indexed",
        "completions": submission.nodes,
        "parallelism": submission.nodes,
        "backoffLimit": 0,
        "podFailurePolicy": _FAILURE_POLICY,
        "template": template(submission, options, gang, command_of(options)),
    }


def _jobset(submission: Submission, options: KubernetesOptions) -> Manifest:
    name = naming.object_name(submission.pool, submission.key)
    return {
        "failurePolicy": {"maxRestarts": 0},
        "network": {"enableDNSHostnames": True, "subdomain": name},
        "ttlSecondsAfterFinished": int(options.keep_finished.total_seconds()),
        "replicatedJobs": [
            {
                "name": REPLICATED_JOB,
                "replicas": 1,
                "template": {
                    "metadata": pod_metadata(submission, options),
                    "spec": _one_run(submission, options, _gang_of_jobset(submission)),
                },
            }
        ],
    }


def _rayjob(submission: Submission, options: KubernetesOptions) -> Manifest:
    """Return a RayJob; its driver is the task, and Ray spans the nodes, so it is no gang of ours."""
    driver = replace(submission, nodes=1, launcher=Launcher.PLAIN)
    variables = {"SPILLWAY_SUBMISSION": submission_text(driver), **options.environment}
    spec: Manifest = {
        "entrypoint": shlex.join(command_of(options)),
        "backoffLimit": 0,
        "runtimeEnvYAML": json.dumps({"env_vars": variables}),  # JSON is YAML
    }
    if options.ray_cluster is not None:
        return {**spec, "clusterSelector": {"ray.io/cluster": options.ray_cluster}}
    pod = template(driver, options, {}, [])
    cluster: Manifest = {"headGroupSpec": {"rayStartParams": {}, "template": pod}}
    if submission.nodes > 1:
        workers = submission.nodes - 1
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": pod,
            }
        ]
    return {
        **spec,
        "shutdownAfterJobFinishes": True,
        "submitterPodTemplate": _submitter(submission, options),
        "rayClusterSpec": cluster,
    }


def _submitter(submission: Submission, options: KubernetesOptions) -> Manifest:
    """Return the pod that hands the driver in and prints its output; its command is KubeRay's own."""
    made = pod_metadata(submission, options)
    asked = {"cpu": "100m", "memory": "256Mi"}
    container = {"name": CONTAINER, "image": options.image, "resources": {"requests": asked}}
    optional = {"serviceAccountName": options.service_account}
    return {
        "metadata": {**made, "labels": {**made["labels"], naming.ROLE: "submitter"}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [container],
            **{name: value for name, value in optional.items() if value},
        },
    }


_SPECS: Final = {"job": _job, "jobset": _jobset, "rayjob": _rayjob}


def _gang_of_job(submission: Submission) -> dict[str, str]:
    name = naming.object_name(submission.pool, submission.key)
    return _gang(submission, job=name, service=name)


def _gang_of_jobset(submission: Submission) -> dict[str, str]:
    name = naming.object_name(submission.pool, submission.key)
    return _gang(submission, job=f"{name}-{REPLICATED_JOB}-0", service=name)


def _gang(submission: Submission, *, job: str, service: str) -> dict[str, str]:
    """Return the variables by which members find each other; see runtime/gang/membership.py."""
    if submission.nodes == 1:
        return {}
    return {
        "SPILLWAY_GANG_JOB": job,
        "SPILLWAY_GANG_SERVICE": service,
        "SPILLWAY_GANG_NODES": str(submission.nodes),
    }
