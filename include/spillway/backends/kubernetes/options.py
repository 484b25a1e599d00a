"""What a Kubernetes pool may say under `options`."""

from __future__ import annotations

import re
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.backends.protocol import Connection
    from spillway.model import Pool, Resources

_Value = TypeVar("_Value")

_DNS_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_VARIABLE: Final = re.compile(r"[A-Za-z_]\w*")
_LABEL: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY: Final = re.compile(
    r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)


def _name(text: str) -> str:
    if not _DNS_NAME.fullmatch(text):
        raise ValueError(
            "must be a name as Kubernetes has them: small letters, digits, `-` and `.`"
        )
    return text


def _folder(text: str) -> str:
    if not text.startswith("/") or ":" in text:
        raise ValueError("must be an absolute path without a colon")
    return text


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL.fullmatch(value):
            raise ValueError(
                f"{key}: {value} is no label: letters, digits, `-`, `_` and `.`, 63 at most"
            )
    return labels


def _variables(variables: dict[str, _Value]) -> dict[str, _Value]:
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if name.startswith("SPILLWAY_SUBMISSION"):
            raise ValueError("SPILLWAY_SUBMISSION is what Spillway itself sets")
    return variables


Name = Annotated[str, AfterValidator(_name)]
Folder = Annotated[str, AfterValidator(_folder)]
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
Variables = Annotated[dict[str, str], AfterValidator(_variables)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Accelerator(_Strict):
    """What an accelerator of ours is on the cluster.

    Attributes:
        resource: Name of the extended resource, such as `nvidia.com/gpu`.
        node_selector: Labels of the nodes that have it.
    """

    resource: str
    node_selector: Labels = Field(default_factory=dict)


class Toleration(_Strict):
    """A taint that the pods put up with; all keys for a `key` of None."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    seconds: int | None = None


class Volume(_Strict):
    """A folder of the pods' that outlives them: a claim, an NFS export, or a folder of the node."""

    path: Folder
    claim: Name | None = None
    host_path: Folder | None = None
    nfs_server: str | None = None
    nfs_path: Folder | None = None
    read_only: bool = False

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        sources = (self.claim, self.host_path, self.nfs_server)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("must say one of claim, host_path, and nfs_server")
        if (self.nfs_server is None) != (self.nfs_path is None):
            raise ValueError("nfs_server and nfs_path go together")
        return self


class SecretKey(_Strict):
    """One value of a Secret that is in the namespace already."""

    secret: Name
    key: str


# Sources: Google Cloud, "Deploy TPU workloads in GKE Standard", cloud.google.com/kubernetes-engine/docs/how-to/tpus; AWS Neuron,
# "Neuron device plugin", awsdocs-neuron.readthedocs-hosted.com; NVIDIA, k8s-device-plugin; AMD, k8s-device-plugin.
_GKE_TPU: Final = "cloud.google.com/gke-tpu-accelerator"
ACCELERATORS: Final[Mapping[str, Accelerator]] = MappingProxyType(
    {
        "TPU-v4": Accelerator(
            resource="google.com/tpu", node_selector={_GKE_TPU: "tpu-v4-podslice"}
        ),
        "TPU-v5e": Accelerator(
            resource="google.com/tpu", node_selector={_GKE_TPU: "tpu-v5-lite-podslice"}
        ),
        "TPU-v5p": Accelerator(
            resource="google.com/tpu", node_selector={_GKE_TPU: "tpu-v5p-slice"}
        ),
        "TPU-v6e": Accelerator(
            resource="google.com/tpu", node_selector={_GKE_TPU: "tpu-v6e-slice"}
        ),
        "Trainium": Accelerator(resource="aws.amazon.com/neuron"),
        "Trainium2": Accelerator(resource="aws.amazon.com/neuron"),
        "Inferentia2": Accelerator(resource="aws.amazon.com/neuron"),
        "MI300X": Accelerator(resource="amd.com/gpu"),
    }
)
_NVIDIA: Final = Accelerator(resource="nvidia.com/gpu")


class Eks(_Strict):
    """A cluster of EKS, for a connection to AWS.

    Attributes:
        region: None for the connection's own.
    """

    cluster: str = Field(min_length=1)
    region: str | None = None


class Gke(_Strict):
    """A cluster of GKE, for a connection to Google Cloud.

    Attributes:
        location: Its region or zone.
        project: None for the project of the connection's credentials.
        endpoint: Which of the API server's addresses is reached from where Airflow runs.
        service_endpoint: Where GKE itself is, such as a private endpoint's host; an `http://` URL is asked without credentials.
    """

    cluster: str = Field(min_length=1)
    location: str = Field(min_length=1)
    project: str | None = None
    endpoint: Literal["public", "private", "dns"] = "public"
    service_endpoint: str | None = None


class KubernetesOptions(_Strict):
    """Options of a Kubernetes pool.

    Attributes:
        eks: Which cluster of EKS it is; None for one that the connection knows.
        gke: Which cluster of GKE it is; None for one that the connection knows.
        namespace: None for the connection's, else `default`.
        image: What the pods run: Spillway and what the entry points import.
        kind: `job`, `jobset` for the JobSet controller, `rayjob` for KubeRay.
        ray_cluster: RayCluster that RayJobs run on; None for one of each job's own.
        queue: LocalQueue of Kueue; None where Kueue does not decide.
        node_selector: Labels that a node must have.
        accelerators: What ours are on this cluster, where the table `ACCELERATORS` does not say it.
        volumes: Folders that are shared, such as the checkpoint store's.
        scratch_gib: Space for files of one attempt; None for what the container has.
        shared_memory_gib: Size of /dev/shm, which data loaders need; None for the container's 64 MiB.
        environment: Variables of every pod; no secrets.
        secret_environment: Variables whose values are keys of Secrets of the namespace.
        secrets: Secrets all of whose keys become variables.
        command: Runs instead of `python -m spillway.runtime`.
        labels: More labels of all objects, such as the team's.
        start_within: How long a job may wait before the task goes elsewhere; None for ever.
        room: `idle` to count what is idle on nodes or in the queue, `slots` where the cluster grows when asked.
        keep_finished: How long finished Jobs and their output stay.
    """

    eks: Eks | None = None
    gke: Gke | None = None
    namespace: Name | None = None
    image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[Name, ...] = ()
    kind: Literal["job", "jobset", "rayjob"] = "job"
    ray_cluster: Name | None = None
    queue: Name | None = None
    service_account: Name | None = None
    node_selector: Labels = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    priority_class: Name | None = None
    runtime_class: Name | None = None
    accelerators: dict[str, Accelerator] = Field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    scratch_gib: float | None = Field(default=None, gt=0)
    shared_memory_gib: float | None = Field(default=None, gt=0)
    environment: Variables = Field(default_factory=dict)
    secret_environment: Annotated[dict[str, SecretKey], AfterValidator(_variables)] = Field(
        default_factory=dict
    )
    secrets: tuple[Name, ...] = ()
    python: str = "python3"
    command: tuple[str, ...] = ()
    labels: Labels = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    start_within: timedelta | None = None
    room: Literal["idle", "slots"] = "idle"
    keep_finished: timedelta = timedelta(days=1)

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.eks is not None and self.gke is not None:
            raise ValueError("eks and gke are two clusters: choose one")
        if twice := sorted(self.environment.keys() & self.secret_environment.keys()):
            raise ValueError(f"{twice[0]} is in environment and in secret_environment: choose one")
        if self.ray_cluster is not None and self.kind != "rayjob":
            raise ValueError("ray_cluster needs `kind: rayjob`")
        if self.ray_cluster is not None and self.queue is not None:
            raise ValueError(
                "Kueue does not admit RayJobs of an existing ray_cluster: leave out queue"
            )
        return self

    def accelerator(self, resources: Resources) -> Accelerator | None:
        """Return what the resources' accelerator is on the cluster; None where they have none."""
        if resources.accelerator is None or resources.accelerator_count == 0:
            return None
        own = self.accelerators.get(resources.accelerator)
        return own or ACCELERATORS.get(resources.accelerator, _NVIDIA)

    def node_labels(self, resources: Resources) -> dict[str, str]:
        """Return the labels of nodes that a pod with these resources may be on."""
        accelerator = self.accelerator(resources)
        return {**(accelerator.node_selector if accelerator else {}), **self.node_selector}


def read_options(pool: Pool, connection: Connection | None) -> KubernetesOptions:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    try:
        options = KubernetesOptions.model_validate(dict(pool.options))
    except ValidationError as error:
        problems = "; ".join(
            f"option {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SpecError(f"pool {pool.name!r} has a mistake: {problems}") from error
    if options.namespace is not None:
        return options
    told = connection.extra.get("namespace") if connection is not None else None
    return options.model_copy(update={"namespace": str(told or "default")})
