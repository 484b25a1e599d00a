"""Where the kinds of objects that are used are in the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


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
RAY_CLUSTERS: Final = Kind(
    prefix="/apis/ray.io/v1",
    plural="rayclusters",
    api_version="ray.io/v1",
    name="RayCluster",
    needs="the KubeRay operator",
)
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
