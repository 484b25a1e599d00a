"""The pods that run a submission: what they ask for, what they are told, and where they may be. All pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from spillway.backends.kubernetes import naming
from spillway.backends.kubernetes.failures import NAME
from spillway.errors import RejectedError
from spillway.model.codec import encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.backends.kubernetes.manifests import Manifest
    from spillway.backends.kubernetes.options import KubernetesOptions, Volume
    from spillway.model import Resources, Submission

MAX_SUBMISSION_BYTES: Final = 100_000
"""Linux allows 128 KiB for one environment variable."""

CONTAINER: Final = "main"
SCRATCH: Final = "/spillway/scratch"


def requests(resources: Resources, options: KubernetesOptions) -> dict[str, str]:
    """Return what each pod asks for, in Kubernetes' quantities."""
    accelerator = options.accelerator(resources)
    asked = {
        "cpu": f"{max(math.ceil(resources.cpus * 1000), 1)}m",
        "memory": _mebibytes(resources.memory_gib),
    }
    if accelerator is not None:
        asked[accelerator.resource] = str(resources.accelerator_count)
    return asked


def metadata(submission: Submission, options: KubernetesOptions) -> Manifest:
    """Return name, labels and annotations of everything that is made for the submission."""
    return {
        "name": naming.object_name(submission.pool, submission.key),
        "namespace": options.namespace,
        "labels": {**options.labels, **naming.labels(submission.pool, submission.key)},
        "annotations": {
            **options.annotations,
            naming.KEY: submission.key,
            naming.NODES: str(submission.nodes),
        },
    }


def pod_metadata(submission: Submission, options: KubernetesOptions) -> Manifest:
    """Return the same without a name, for what a controller names."""
    made = metadata(submission, options)
    return {"labels": made["labels"], "annotations": made["annotations"]}


def command_of(options: KubernetesOptions) -> list[str]:
    """Return what runs the submission."""
    return list(options.command) or [options.python, "-m", "spillway.runtime"]


def template(
    submission: Submission,
    options: KubernetesOptions,
    gang: Mapping[str, str],
    command: list[str],
) -> Manifest:
    """Return the pods' template; without a command, what the image runs."""
    optional = {
        "serviceAccountName": options.service_account,
        "priorityClassName": options.priority_class,
        "runtimeClassName": options.runtime_class,
        "nodeSelector": options.node_labels(submission.resources),
        "tolerations": [_toleration(one.model_dump()) for one in options.tolerations],
        "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
        "subdomain": gang.get("SPILLWAY_GANG_SERVICE") if options.kind == "job" else None,
        "volumes": _volumes(options),
    }
    spec: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": math.ceil(submission.grace_period.total_seconds()),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_container(submission, options, gang, command)],
    }
    return {
        "metadata": pod_metadata(submission, options),
        "spec": spec | {name: value for name, value in optional.items() if value},
    }


def submission_text(submission: Submission) -> str:
    """Return the submission as JSON without a dollar sign, since Kubernetes replaces `$(NAME)` in values."""
    text = encode_json(submission).decode()
    if len(text.encode()) > MAX_SUBMISSION_BYTES:
        raise RejectedError(
            f"the submission has {len(text.encode())} bytes, and an environment variable takes {MAX_SUBMISSION_BYTES}; put"
            " large arguments into the store and pass their place",
            backend=NAME,
            key=submission.key,
        )
    return text.replace("$", "\\u0024")


def _container(
    submission: Submission,
    options: KubernetesOptions,
    gang: Mapping[str, str],
    command: list[str],
) -> Manifest:
    asked = requests(submission.resources, options)
    optional = {
        "command": command,
        "imagePullPolicy": options.image_pull_policy,
        "envFrom": [{"secretRef": {"name": name}} for name in options.secrets],
        "volumeMounts": _mounts(options),
    }
    container: Manifest = {
        "name": CONTAINER,
        "image": options.image,
        "env": _environment(submission, options, gang),
        "resources": {
            "requests": asked,
            "limits": {name: quantity for name, quantity in asked.items() if name != "cpu"},
        },
    }
    return container | {name: value for name, value in optional.items() if value}


def _environment(
    submission: Submission, options: KubernetesOptions, gang: Mapping[str, str]
) -> list[Manifest]:
    plain = {"SPILLWAY_SUBMISSION": submission_text(submission), "PYTHONUNBUFFERED": "1"}
    if options.scratch_gib is not None:
        plain["SPILLWAY_SCRATCH"] = SCRATCH
    plain |= {**gang, **options.environment}
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": one.secret, "key": one.key}}}
        for name, one in options.secret_environment.items()
    ]
    return [*({"name": name, "value": value} for name, value in plain.items()), *secret]


def _toleration(said: Manifest) -> Manifest:
    words: Manifest = {**said, "tolerationSeconds": said["seconds"]}
    return {name: value for name, value in words.items() if value is not None and name != "seconds"}


def _volumes(options: KubernetesOptions) -> list[Manifest]:
    made = [
        {"name": f"volume-{number}", **_source(volume)}
        for number, volume in enumerate(options.volumes)
    ]
    if options.scratch_gib is not None:
        size = _mebibytes(options.scratch_gib)
        made.append({"name": "scratch", "emptyDir": {"sizeLimit": size}})
    if options.shared_memory_gib is not None:
        size = _mebibytes(options.shared_memory_gib)
        made.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    return made


def _source(volume: Volume) -> Manifest:
    if volume.claim is not None:
        claim = {"claimName": volume.claim, "readOnly": volume.read_only}
        return {"persistentVolumeClaim": claim}
    if volume.host_path is not None:
        return {"hostPath": {"path": volume.host_path}}
    return {"nfs": {"server": volume.nfs_server, "path": volume.nfs_path}}


def _mounts(options: KubernetesOptions) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": f"volume-{number}", "mountPath": volume.path, "readOnly": volume.read_only}
        for number, volume in enumerate(options.volumes)
    ]
    if options.scratch_gib is not None:
        mounts.append({"name": "scratch", "mountPath": SCRATCH})
    if options.shared_memory_gib is not None:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108  # where programs look for it
    return mounts


def _mebibytes(gib: float) -> str:
    return f"{max(math.ceil(gib * 1024), 1)}Mi"
