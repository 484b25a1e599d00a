"""The controllers of the fake cluster: what makes pods of Jobs, JobSets and RayJobs, and says of each how it goes.

What they write is as "Jobs" and "Pod failure policy" of the Kubernetes documentation have it; JobSet and KubeRay are there as
far as their statuses go.
"""

from __future__ import annotations

import json
import shlex
import threading
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from spillway.testing.kubernetes_kubelet import FINISHED, FakeKubelet, condition, phase_of
from spillway.testing.kubernetes_objects import Object, Objects, owner_of, set_condition, stamp
from spillway.testing.kubernetes_server import FakeApiServer, api_server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

STEP_SECONDS: Final = 0.05
INDEX: Final = "batch.kubernetes.io/job-completion-index"
NODE: Final[Object] = {"cpu": "8", "memory": "32Gi", "pods": "110"}


class FakeCluster:
    """Controllers and kubelets in one thread, over the objects of `server`.

    Attributes:
        no_pods: Why the job controller may make no pods, such as a quota's words; empty when it may.
    """

    def __init__(
        self,
        server: Objects,
        folder: Path,
        *,
        controllers: frozenset[str] = frozenset({"rayjobs", "jobsets", "jobs"}),
        step_seconds: float = STEP_SECONDS,
    ) -> None:
        self.server = server
        self.no_pods = ""
        self.kubelet = FakeKubelet(server, folder)
        self._controllers = controllers
        self._step_seconds = step_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake cluster", daemon=True)

    def add_node(
        self, name: str, labels: Mapping[str, str] | None = None, **allocatable: str
    ) -> None:
        """Join a node with 8 cores and 32 GiB, and what else it has."""
        has = {**NODE, **allocatable}
        status = {
            "allocatable": has,
            "capacity": has,
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        metadata = {"name": name, "labels": dict(labels or {})}
        self.server.add("nodes", {"metadata": metadata, "spec": {}, "status": status})

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End all containers, and work no more."""
        self._stop.set()
        self._thread.join()
        self.kubelet.stop()

    # ---- one round ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.wait(self._step_seconds):
            with self.server.lock, suppress(*self.server.troubles):
                self._step()

    def _step(self) -> None:
        self.server.look_anew()
        self.kubelet.sync()
        acts = {"rayjobs": self._rayjob, "jobsets": self._jobset, "jobs": self._job}
        for plural, act in acts.items():
            for workload in self.server.all(plural) if plural in self._controllers else ():
                act(workload)
        self.kubelet.reap()

    def _status(self, plural: str, made: Object, change: Callable[[Object], object]) -> None:
        metadata = made["metadata"]
        self.server.update(plural, metadata["name"], change, namespace=metadata["namespace"])

    def _owned(self, plural: str, owner: Object) -> list[Object]:
        uid = owner["metadata"]["uid"]
        return [one for one in self.server.all(plural) if owner_of(one) == uid]

    # ---- controllers ----------------------------------------------------------------------------------------------

    def _job(self, job: Object) -> None:
        if has_condition(job, "Complete") or has_condition(job, "Failed"):
            return
        pods = self._owned("pods", job)
        active = [pod for pod in pods if phase_of(pod) not in FINISHED]
        if job["spec"].get("suspend"):
            self._delete(active)
            self._status(
                "jobs", job, lambda one: set_condition(one, condition("Suspended", "JobSuspended"))
            )
            return
        if has_condition(job, "Suspended"):
            resumed = condition("Suspended", "JobResumed", status="False")
            self._status("jobs", job, lambda one: set_condition(one, resumed))
        failure = _failure(job, pods)
        if failure is not None:
            self._fail_job(job, failure, active)
        elif (
            len([pod for pod in pods if phase_of(pod) == "Succeeded"]) == job["spec"]["completions"]
        ):
            self._status("jobs", job, lambda one: _complete(one, "Complete", "CompletionsReached"))
        else:
            self._make_pods(job, pods)

    def _fail_job(self, job: Object, failure: Object, active: list[Object]) -> None:
        self._delete(active)

        def begin_to_fail(one: Object) -> None:
            _begin_status(one)
            set_condition(one, {**failure, "type": "FailureTarget"})

        self._status("jobs", job, begin_to_fail)
        if not active:
            self._status("jobs", job, lambda one: set_condition(one, {**failure, "type": "Failed"}))

    def _make_pods(self, job: Object, pods: list[Object]) -> None:
        there = {pod["metadata"]["labels"][INDEX] for pod in pods}
        missing = [n for n in range(job["spec"]["parallelism"]) if str(n) not in there]
        if missing and self.no_pods:
            self._say("FailedCreate", job, f"Error creating: {self.no_pods}")
            return
        for index in missing:
            extra = {INDEX: str(index), "batch.kubernetes.io/job-name": job["metadata"]["name"]}
            name = f"{job['metadata']['name']}-{index}"
            self._make_pod(
                job, job["spec"]["template"], name, extra, {"JOB_COMPLETION_INDEX": str(index)}
            )

    def _make_pod(
        self,
        owner: Object,
        template: Object,
        name: str,
        labels: Mapping[str, str],
        variables: Mapping[str, str],
    ) -> None:
        metadata = template.get("metadata") or {}
        made: Object = {
            "metadata": {
                "name": f"{name}-{uuid.uuid4().hex[:5]}",
                "labels": {**metadata.get("labels", {}), **labels},
                "annotations": metadata.get("annotations", {}),
                "ownerReferences": [
                    {
                        "apiVersion": owner["apiVersion"],
                        "kind": owner["kind"],
                        "name": owner["metadata"]["name"],
                        "uid": owner["metadata"]["uid"],
                    }
                ],
            },
            "spec": json.loads(json.dumps(template["spec"])),
            "status": {"phase": "Pending"},
        }
        container = made["spec"]["containers"][0]
        container["env"] = [
            *container.get("env", []),
            *({"name": key, "value": value} for key, value in variables.items()),
        ]
        self.server.add("pods", made, owner["metadata"]["namespace"])

    def _jobset(self, jobset: Object) -> None:
        if has_condition(jobset, "Completed") or has_condition(jobset, "Failed"):
            return
        children, (replicated,) = self._owned("jobs", jobset), jobset["spec"]["replicatedJobs"]
        if not children:
            metadata = jobset["metadata"]
            child = {
                **replicated["template"],
                "metadata": {
                    **replicated["template"]["metadata"],
                    "name": f"{metadata['name']}-{replicated['name']}-0",
                    "ownerReferences": [{"uid": metadata["uid"], "kind": "JobSet"}],
                },
            }
            child["spec"] = {**child["spec"], "suspend": bool(jobset["spec"].get("suspend"))}
            self.server.add("jobs", child, metadata["namespace"])
        elif has_condition(children[0], "Complete"):
            self._status(
                "jobsets", jobset, lambda one: _complete(one, "Completed", "AllJobsCompleted")
            )
        elif has_condition(children[0], "Failed"):
            first = children[0]["metadata"]["name"]
            said = f"jobset failed due to one or more job failures (first failed job: {first})"
            self._status(
                "jobsets",
                jobset,
                lambda one: set_condition(one, condition("Failed", "FailedJobs", said)),
            )

    def _rayjob(self, rayjob: Object) -> None:
        status = rayjob.get("status") or {}
        if "clusterSelector" in rayjob["spec"]:  # it would run on pods that are there already
            return
        if rayjob["spec"].get("suspend") or status.get("jobDeploymentStatus") in {
            "Complete",
            "Failed",
        }:
            return
        pods = self._owned("pods", rayjob)
        if not pods:
            template = json.loads(
                json.dumps(rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"])
            )
            template["spec"]["containers"][0]["command"] = shlex.split(rayjob["spec"]["entrypoint"])
            variables = json.loads(rayjob["spec"]["runtimeEnvYAML"])["env_vars"]
            labels = {"ray.io/node-type": "head"}
            self._make_pod(
                rayjob, template, f"{rayjob['metadata']['name']}-head", labels, variables
            )
            return
        said: Object = {
            "Pending": {"jobDeploymentStatus": "Initializing"},
            "Running": {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"},
            "Succeeded": {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"},
            "Failed": {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "reason": "AppFailed",
            },
        }[phase_of(pods[0])]
        if phase_of(pods[0]) == "Failed":
            code = pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
            said["message"] = (
                f"Job entrypoint command failed with exit code {code}, last available logs"
            )
        self._status("rayjobs", rayjob, lambda one: one.setdefault("status", {}).update(said))

    def _delete(self, pods: list[Object]) -> None:
        for pod in pods:
            self.server.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"])

    def _say(self, reason: str, about: Object, message: str) -> None:
        name = about["metadata"]["name"]
        if self.server.one("events", f"{name}.1", about["metadata"]["namespace"]) is None:
            event = {
                "metadata": {"name": f"{name}.1"},
                "reason": reason,
                "message": message,
                "involvedObject": {"kind": about["kind"], "name": name},
            }
            self.server.add("events", event, about["metadata"]["namespace"])


@contextmanager
def fake_kubernetes(
    folder: Path, *, token: str, encryption: ssl.SSLContext | None = None
) -> Iterator[tuple[str, FakeApiServer, FakeCluster]]:
    """Run a cluster of one node, with `folder` as where containers begin; yield its URL and its parts."""
    server = FakeApiServer(token=token)
    cluster = FakeCluster(server, folder)
    cluster.add_node("node-1")
    with api_server(server, encryption) as url:
        cluster.start()
        try:
            yield url, server, cluster
        finally:
            cluster.stop()


_BACK_OFF: Final = condition(
    "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
)


def has_condition(made: Object, name: str) -> bool:
    """Return whether the condition is true."""
    conditions = (made.get("status") or {}).get("conditions") or []
    return any(one["type"] == name and one["status"] == "True" for one in conditions)


def _failure(job: Object, pods: list[Object]) -> Object | None:
    """Return why the job fails, by its pod failure policy."""
    failed = [pod for pod in pods if phase_of(pod) == "Failed"]
    if not failed:
        return None
    if "podFailurePolicy" not in job["spec"]:
        return _BACK_OFF
    metadata = failed[0]["metadata"]
    place = f"{metadata['namespace']}/{metadata['name']}"
    if has_condition(failed[0], "DisruptionTarget"):
        said = f"Pod {place} has condition DisruptionTarget matching FailJob rule at index 0"
        return condition("Failed", "PodFailurePolicy", said)
    statuses = failed[0]["status"].get("containerStatuses")
    ended: Any = statuses[0]["state"].get("terminated") if statuses else None
    if ended:
        said = f"Container main for pod {place} failed with exit code {ended['exitCode']} matching FailJob rule at index 1"
        return condition("Failed", "PodFailurePolicy", said)
    return _BACK_OFF


def _begin_status(made: Object) -> Object:
    """Return the status, which without a beginning has no end."""
    status: Object = made.setdefault("status", {})
    status.setdefault("startTime", stamp())
    return status


def _complete(made: Object, name: str, reason: str) -> None:
    _begin_status(made)["completionTime"] = stamp()
    set_condition(made, condition("SuccessCriteriaMet", reason))
    set_condition(made, condition(name, reason))
