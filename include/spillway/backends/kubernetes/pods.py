"""What one pod's status says, and of several which one tells. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.backends.kubernetes.manifests import Manifest, items, moment, part, text
from spillway.backends.kubernetes.naming import JOB, ROLE
from spillway.backends.kubernetes.pod_template import CONTAINER
from spillway.model import JobEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Why a pod carries the condition DisruptionTarget. Source: Kubernetes, "Disruptions", section Pod disruption conditions,
# https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions.
DISRUPTIONS: Final[Mapping[str, tuple[JobEvent, str]]] = MappingProxyType(
    {
        "PreemptionByScheduler": (JobEvent.PREEMPTED, "a pod of higher priority took its place"),
        "EvictionByEvictionAPI": (JobEvent.PREEMPTED, "it was evicted, as when a node is drained"),
        "DeletionByTaintManager": (
            JobEvent.PREEMPTED,
            "its node got a taint that it does not tolerate",
        ),
        "TerminationByKubelet": (
            JobEvent.PREEMPTED,
            "its node shuts down or runs out of a resource",
        ),
        "DeletionByPodGC": (JobEvent.VANISHED, "its node is gone, so nobody saw how it ended"),
    }
)

# Why a container waits for good. Source: Kubernetes, pkg/kubelet/images/types.go and pkg/kubelet/kuberuntime;
# https://kubernetes.io/docs/concepts/containers/images/#imagepullbackoff.
BLOCKED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "InvalidImageName": "correct the option image",
        "ErrImageNeverPull": "the node does not have the image; correct image_pull_policy",
        "CreateContainerConfigError": "make the Secret or key that the pool's options name",
        "CreateContainerError": "correct the options image, python, command and volumes",
        "RunContainerError": "correct the options image, python, command and volumes",
    }
)
PULLING: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(
        ("ErrImagePull", "ImagePullBackOff"),
        "correct the option image, or let the cluster pull it: image_pull_secrets",
    )
)

# Why the API server takes no pod of a Job, in the words of the controller's event; what is not here, such as a quota, may pass.
# Source: Kubernetes, plugin/pkg/admission/{priority,serviceaccount,runtimeclass}, pod-security-admission.
NEVER_MADE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "no PriorityClass with name": "correct the option priority_class",
        "error looking up service account": "correct the option service_account",
        "RuntimeClass": "correct the option runtime_class",
        "violates PodSecurity": "a policy of the namespace forbids it; correct the pool's options",
        "admission webhook": "a policy of the cluster forbids it; correct the pool's options",
    }
)
PULL_PATIENCE: Final = timedelta(minutes=2)
"""How long an image may fail to be pulled, or a pod to be made; registries falter, and a few tries are made by then."""

END_PATIENCE: Final = timedelta(minutes=1)
"""How long after the end of its grace period a pod may still be there before its node is given up."""

FINISHED: Final = frozenset({"Succeeded", "Failed"})


def by_job(pods: Iterable[Manifest]) -> dict[str, list[Manifest]]:
    """Return the pods by the name of the object that they belong to, the first member of a gang first."""
    found: dict[str, list[Manifest]] = {}
    for pod in sorted(pods, key=_rank):
        found.setdefault(text(part(pod["metadata"], "labels"), JOB), []).append(pod)
    return found


def that_failed(pods: Sequence[Manifest], name: str | None) -> Manifest | None:
    """Return the pod of that name; without a name one that was disrupted, else the one that failed first."""
    if name is not None:
        return next((pod for pod in pods if pod["metadata"]["name"] == name), None)
    failed = [pod for pod in pods if phase(pod) == "Failed"]
    disrupted = [pod for pod in pods if disruption(pod)]
    first = sorted(failed, key=lambda pod: text(terminated(pod), "finishedAt"))
    return next(iter([*disrupted, *first]), None)


def going(pods: Sequence[Manifest]) -> str:
    """Return what is to be said of pods that run."""
    for pod in pods:
        if told := disruption(pod):
            return f"it is told to stop: {told.get('reason')}, {told.get('message', '')}"
    return "it runs"


def waiting(pods: Sequence[Manifest]) -> str:
    """Return why pods do not run yet, in the scheduler's or the kubelet's words."""
    for pod in pods:
        scheduled = _condition(pod, "PodScheduled")
        if scheduled is not None and scheduled["status"] == "False":
            return f"{scheduled.get('reason', '')}: {scheduled.get('message', '')}"
    words = [str(one.get("reason", "")) for pod in pods for one in _containers(pod, "waiting")]
    return ", ".join(sorted({word for word in words if word}))


def blocked(pod: Manifest, now: datetime) -> str:
    """Return why a container of the pod will never run; empty when it may."""
    created = moment(pod["metadata"].get("creationTimestamp"), now)
    for waiting in _containers(pod, "waiting"):
        reason, words = str(waiting.get("reason", "")), waiting.get("message", "")
        if reason in BLOCKED:
            return f"{reason}: {words}; {BLOCKED[reason]}"
        if reason in PULLING and now - created > PULL_PATIENCE:
            return f"{reason}: {words}; {PULLING[reason]}"
    return ""


def never_made(stuck: str, created: datetime, now: datetime) -> str:
    """Return why a job will never have pods, if it is that for long enough; empty when it may."""
    remedy = next((remedy for words, remedy in NEVER_MADE.items() if words in stuck), "")
    return f"{stuck}; {remedy}" if remedy and now - created > PULL_PATIENCE else ""


def is_lost(pod: Manifest, now: datetime) -> bool:
    """Return whether a pod that was to be gone is not: its kubelet does not answer."""
    return now - moment(pod["metadata"].get("deletionTimestamp"), now) > END_PATIENCE


def is_over(pod: Manifest) -> bool:
    """Return whether nothing of the pod runs any more."""
    return phase(pod) in FINISHED


def disruption(pod: Manifest) -> Manifest | None:
    """Return the condition that says why the pod is taken away; None where it is not."""
    found = _condition(pod, "DisruptionTarget")
    return found if found is not None and found["status"] == "True" else None


def exit_code(pod: Manifest | None) -> int | None:
    """Return how the container ended; None where it did not, or nobody saw it."""
    code = terminated(pod).get("exitCode")
    return None if code is None else int(code)


def terminated(pod: Manifest | None) -> Manifest:
    """Return how the container ended, in the kubelet's words; empty where it did not."""
    ended = _containers(pod, "terminated") if pod is not None else []
    return ended[0] if ended else {}


def phase(pod: Manifest) -> str:
    """Return the pod's phase."""
    return text(part(pod, "status"), "phase") or "Pending"


def _containers(pod: Manifest, state: str) -> list[Manifest]:
    """Return how the pod's own containers are in `state`; what others put beside them counts for waiting only."""
    statuses = [*items(part(pod, "status"), "containerStatuses")]
    if state == "waiting":
        statuses += items(part(pod, "status"), "initContainerStatuses")
    else:
        own = [one for one in statuses if one.get("name") == CONTAINER]
        statuses = own or statuses
    states: list[Manifest] = [part(one, "state") for one in statuses]
    return [one[state] for one in states if one.get(state)]


def _condition(pod: Manifest, name: str) -> Manifest | None:
    conditions = items(part(pod, "status"), "conditions")
    return next((one for one in conditions if one["type"] == name), None)


def _rank(pod: Manifest) -> tuple[int, str]:
    labels = part(pod["metadata"], "labels")
    if ROLE in labels:
        return (-1, "")  # Ray's driver prints where it was submitted from
    if text(labels, "ray.io/node-type") == "head":
        return (0, "")
    index = text(labels, "batch.kubernetes.io/job-completion-index")
    return (int(index) if index.isdigit() else 1, str(pod["metadata"]["name"]))
