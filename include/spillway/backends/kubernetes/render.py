"""What is applied: a Job, a JobSet or a RayJob, and a gang's Service. All pure."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.kubernetes import naming
from spillway.backends.kubernetes.failures import NAME
from spillway.errors import RejectedError
from spillway.model import Launcher
from spillway.model.codec import encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.backends.kubernetes.options import KubernetesOptions, Volume
    from spillway.model import Resources, Submission

Manifest = dict[str, Any]

MAX_SUBMISSION_BYTES: Final = 100_000
"""Linux allows 128 KiB for one environment variable."""

CONTAINER: Final = "main"
REPLICATED_JOB: Final = "w"
SCRATCH: Final = "/spillway/scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Where objects of one kind are in the API.

    Attributes:
        prefix: Path of group and version.
        needs: What to install for it; empty for what every cluster has.
    """

    prefix: str
    plural: str
    api_version: str
    name: str
    needs: str = ""

    def path(self, namespace: str, name: str = "") -> str:
        """Return the path of the object, or of the collection without a name."""
        collection = f"{self.prefix}/namespaces/{namespace}/{self.plural}"
        return f"{collection}/{name}" if name else collection


# Sources: Kubernetes API reference, batch/v1; JobSet API v1alpha2, jobset.sigs.k8s.io/docs/reference; KubeRay API ray.io/v1,
# docs.ray.io/en/latest/cluster/kubernetes; Kueue API v1beta1, kueue.sigs.k8s.io/docs/reference.
KINDS: Final[Mapping[str, Kind]] = {
    "job": Kind(prefix="/apis/batch/v1", plural="jobs", api_version="batch/v1", name="Job"),
    "jobset": Kind(
        prefix="/apis/jobset.x-k8s.io/v1alpha2",
        plural="jobsets",
        api_version="jobset.x-k8s.io/v1alpha2",
        name="JobSet",
        needs="the JobSet controller",
    ),
    "rayjob": Kind(
        prefix="/apis/ray.io/v1",
        plural="rayjobs",
        api_version="ray.io/v1",
        name="RayJob",
        needs="the KubeRay operator",
    ),
}
PODS: Final = Kind(prefix="/api/v1", plural="pods", api_version="v1", name="Pod")
SERVICES: Final = Kind(prefix="/api/v1", plural="services", api_version="v1", name="Service")
EVENTS: Final = Kind(prefix="/api/v1", plural="events", api_version="v1", name="Event")
WORKLOADS: Final = Kind(
    prefix="/apis/kueue.x-k8s.io/v1beta1",
    plural="workloads",
    api_version="kueue.x-k8s.io/v1beta1",
    name="Workload",
    needs="Kueue",
)

# The pod fails the Job whatever ended it: a task goes on from its checkpoint in another lease, on the pool that is then the
# cheapest, and `Ignore` would start it again in this one. The first rule that matches is named in the Job's message.
# Source: Kubernetes, "Pod failure policy", kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy.
_FAILURE_POLICY: Final[Manifest] = {
    "rules": [
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": [0]},
        },
    ]
}


def render(submission: Submission, options: KubernetesOptions) -> Manifest:
    """Return the object for the submission; it holds no secret.

    Raises:
        RejectedError: The submission is too large for an environment variable.
    """
    kind = KINDS[options.kind]
    made: Manifest = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": _metadata(submission, options),
        "spec": _SPECS[options.kind](submission, options),
    }
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
        "metadata": {**_metadata(submission, options), "ownerReferences": [owner]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {naming.JOB: name},
        },
    }


def needs_service(submission: Submission, options: KubernetesOptions) -> bool:
    """Return whether the pods meet through a Service of ours."""
    return submission.nodes > 1 and options.kind == "job"


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


def _metadata(submission: Submission, options: KubernetesOptions) -> Manifest:
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
        "template": _template(submission, options, gang, _command(options)),
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
                    "metadata": _without_name(submission, options),
                    "spec": _one_run(submission, options, _gang_of_jobset(submission)),
                },
            }
        ],
    }


def _rayjob(submission: Submission, options: KubernetesOptions) -> Manifest:
    """Return a RayJob; its driver is the task, and Ray spans the nodes, so it is no gang of ours."""
    driver = replace(submission, nodes=1, launcher=Launcher.PLAIN)
    variables = {"SPILLWAY_SUBMISSION": _text(driver), **options.environment}
    spec: Manifest = {
        "entrypoint": shlex.join(_command(options)),
        "backoffLimit": 0,
        "runtimeEnvYAML": json.dumps({"env_vars": variables}),  # JSON is YAML
    }
    if options.ray_cluster is not None:
        return {**spec, "clusterSelector": {"ray.io/cluster": options.ray_cluster}}
    template = _template(driver, options, {}, [])
    cluster: Manifest = {"headGroupSpec": {"rayStartParams": {}, "template": template}}
    if submission.nodes > 1:
        workers = submission.nodes - 1
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": template,
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
    metadata = _without_name(submission, options)
    asked = {"cpu": "100m", "memory": "256Mi"}
    container = {"name": CONTAINER, "image": options.image, "resources": {"requests": asked}}
    optional = {"serviceAccountName": options.service_account}
    return {
        "metadata": {**metadata, "labels": {**metadata["labels"], naming.ROLE: "submitter"}},
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


def _command(options: KubernetesOptions) -> list[str]:
    return list(options.command) or [options.python, "-m", "spillway.runtime"]


def _without_name(submission: Submission, options: KubernetesOptions) -> Manifest:
    metadata = _metadata(submission, options)
    return {"labels": metadata["labels"], "annotations": metadata["annotations"]}


def _template(
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
        "metadata": _without_name(submission, options),
        "spec": spec | {name: value for name, value in optional.items() if value},
    }


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
    plain = {"SPILLWAY_SUBMISSION": _text(submission), "PYTHONUNBUFFERED": "1"}
    if options.scratch_gib is not None:
        plain["SPILLWAY_SCRATCH"] = SCRATCH
    plain |= {**gang, **options.environment}
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": one.secret, "key": one.key}}}
        for name, one in options.secret_environment.items()
    ]
    return [*({"name": name, "value": value} for name, value in plain.items()), *secret]


def _text(submission: Submission) -> str:
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


def _toleration(said: Mapping[str, Any]) -> Manifest:
    words = {**said, "tolerationSeconds": said["seconds"]}
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
