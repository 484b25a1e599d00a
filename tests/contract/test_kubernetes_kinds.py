"""JobSets, RayJobs and Kueue on the real API server that `SPILLWAY_TEST_KUBECONFIG` names, but for their controllers.

Kinds that the cluster lacks are made for the length of the tests, if its user may, with schemas of the parts that we use;
what their controllers would say is said by the tests. A kind that is there already has a controller, which would disagree.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client as kubernetes_client
from kubernetes.client.exceptions import ApiException

from contract.kubernetes_real import VARIABLE, RealCluster, RealWorld
from contract.kubernetes_world import wait_for
from spillway.errors import CapacityError
from spillway.model import JobEvent
from spillway.testing.backend_suite import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"{VARIABLE} names no API server"
)
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
KINDS = {
    "jobsets": ("jobset.x-k8s.io", "v1alpha2", "JobSet", "Namespaced"),
    "rayjobs": ("ray.io", "v1", "RayJob", "Namespaced"),
    "workloads": ("kueue.x-k8s.io", "v1beta1", "Workload", "Namespaced"),
    "localqueues": ("kueue.x-k8s.io", "v1beta1", "LocalQueue", "Namespaced"),
    "clusterqueues": ("kueue.x-k8s.io", "v1beta1", "ClusterQueue", "Cluster"),
}


class Kinds:
    """Objects of these kinds, as their controllers and administrators have them."""

    def __init__(self, cluster: RealCluster) -> None:
        self.cluster = cluster
        self._api = kubernetes_client.CustomObjectsApi(cluster.client)

    def place(self, plural: str) -> dict[str, str]:
        group, version, _, scope = KINDS[plural]
        space = {"namespace": self.cluster.namespace} if scope == "Namespaced" else {}
        return {"group": group, "version": version, "plural": plural, **space}

    def one(self, plural: str, name: str) -> Any:
        return self._api.get_namespaced_custom_object(name=name, **self.place(plural))

    def add(self, plural: str, name: str, status: Any = None, **made: Any) -> None:
        group, version, kind, scope = KINDS[plural]
        body = {"apiVersion": f"{group}/{version}", "kind": kind, **made}
        body["metadata"] = {"name": name, **made.get("metadata", {})}
        place = self.place(plural)
        if scope == "Cluster":
            self._api.create_cluster_custom_object(body=body, **place)
            self._api.patch_cluster_custom_object_status(
                name=name, body={"status": status}, **place
            )
            return
        self._api.create_namespaced_custom_object(body=body, **place)
        if status is not None:
            self.say(plural, name, **status)

    def say(self, plural: str, name: str, **status: Any) -> None:
        place = self.place(plural)
        self._api.patch_namespaced_custom_object_status(name=name, body={"status": status}, **place)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinds]:
    with ExitStack() as stack:
        cluster = RealCluster(os.environ[VARIABLE], tmp_path_factory.mktemp("kubernetes"))
        stack.callback(cluster.close)
        api = kubernetes_client.ApiextensionsV1Api(cluster.client)
        made = Kinds(cluster)
        for plural, (group, version, kind, scope) in KINDS.items():
            definition = _definition(plural, group, version, kind, scope)
            name = definition["metadata"]["name"]
            try:
                api.create_custom_resource_definition(definition)
            except ApiException as error:
                if error.status not in {403, 409}:
                    raise
                pytest.skip(f"{kind} is there already, or may not be made: {error.reason}")
            stack.callback(api.delete_custom_resource_definition, name)
            wait_for(lambda: _is_served(api.read_custom_resource_definition(name)))  # noqa: B023  # called here
        yield made


def _definition(plural: str, group: str, version: str, kind: str, scope: str) -> dict[str, Any]:
    properties = {"spec": ANYTHING, "status": ANYTHING}
    return {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def _is_served(definition: Any) -> bool:
    conditions = definition.status.conditions if definition.status else None
    return any(one.type == "Established" and one.status == "True" for one in conditions or ())


def condition(name: str, **more: str) -> dict[str, Any]:
    return {"type": name, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", **more}


@pytest.mark.parametrize(
    ("kind", "plural", "says"),
    [
        ("jobset", "jobsets", {"conditions": [condition("Completed", reason="AllJobsCompleted")]}),
        ("rayjob", "rayjobs", {"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}),
    ],
)
def test_every_kind_is_applied_watched_and_deleted(
    kinds: Kinds, kind: str, plural: str, says: dict[str, Any]
) -> None:
    world = RealWorld(kinds.cluster, kind=kind)
    backend = world.connect()
    submissions = [world.submission(Behaviour.SUCCEEDS) for _ in range(2)]
    done, other = (backend.submit(submission) for submission in submissions)
    assert world.connect().submit(submissions[0]) == done
    assert {job.key for job in backend.list_jobs()} == {done.key, other.key}
    with pytest.raises(CapacityError, match="2 of its 2 slots"):
        backend.submit(world.submission(Behaviour.SUCCEEDS))
    assert backend.observe([done])[done.key].event is JobEvent.SUBMITTED
    kinds.say(plural, str(done.provider_id), **says)
    assert world.wait(backend, done).event is JobEvent.SUCCEEDED
    assert [job.key for job in backend.list_jobs()] == [other.key]
    backend.release(other)
    backend.release(other)
    assert backend.observe([other])[other.key].event is JobEvent.VANISHED
    backend.release(done)


def test_a_queue_of_kueue_says_what_is_left_and_takes_back(kinds: Kinds) -> None:
    flavor = {"name": "spot", "resources": [{"name": "cpu", "nominalQuota": 3}]}
    group = {"coveredResources": ["cpu"], "flavors": [flavor]}
    used = [{"name": "spot", "resources": [{"name": "cpu", "total": "2800m"}]}]
    queue = f"all-{kinds.cluster.namespace}"
    kinds.add(
        "clusterqueues", queue, {"flavorsReservation": used}, spec={"resourceGroups": [group]}
    )
    kinds.add("localqueues", "ml", spec={"clusterQueue": queue})
    world = RealWorld(kinds.cluster, kind="jobset", queue="ml", slots=5, room="idle")
    backend = world.connect()
    backend._minor = (34,)  # Jobs of an old cluster know no queue, of which there is none here
    assert backend.free_slots() == 2  # of a tenth of a CPU each
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    made = kinds.one("jobsets", str(job.provider_id))
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "ml"
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    owner = {"apiVersion": made["apiVersion"], "kind": "JobSet", "name": made["metadata"]["name"]}
    kinds.add(
        "workloads",
        "jobset-1",
        {"conditions": [condition("Evicted", reason="Preempted", message="for another")]},
        metadata={"ownerReferences": [{**owner, "uid": made["metadata"]["uid"]}]},
        spec={"queueName": "ml"},
    )
    seen = world.wait(backend, job)
    assert seen.event is JobEvent.PREEMPTED
    assert "Preempted: for another" in seen.detail
    backend.release(job)
