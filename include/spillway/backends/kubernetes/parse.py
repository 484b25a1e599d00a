"""What the API server's objects mean for a lease: a Job, JobSet or RayJob, and its pods. All pure."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.backends.kubernetes import naming
from spillway.backends.kubernetes import pods as pods_of
from spillway.backends.kubernetes.manifests import items, moment, part, text
from spillway.backends.kubernetes.pods import DISRUPTIONS, FINISHED
from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from spillway.backends.kubernetes.manifests import Manifest

# Conditions of a Job and of a JobSet. A state that is not in these tables is reported as unknown, not guessed.
# Sources: Kubernetes API reference, JobStatus,
# https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/#JobStatus; JobSet API, JobSetConditionType,
# https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2.
CONDITIONS: Final[Mapping[str, JobEvent | None]] = MappingProxyType(
    {
        "Complete": JobEvent.SUCCEEDED,
        "Completed": JobEvent.SUCCEEDED,
        "Failed": JobEvent.FAILED,
        "SuccessCriteriaMet": None,  # pods are still being ended
        "FailureTarget": None,
        "Suspended": JobEvent.SUBMITTED,
    }
)

# Sources: KubeRay API, JobStatus and JobDeploymentStatus,
# https://docs.ray.io/en/latest/cluster/kubernetes/getting-started/rayjob-quick-start.html; Ray, JobStatus.
RAY_JOBS: Final[Mapping[str, JobEvent | None]] = MappingProxyType(
    {
        "PENDING": JobEvent.SUBMITTED,
        "RUNNING": JobEvent.STARTED,
        "SUCCEEDED": JobEvent.SUCCEEDED,
        "FAILED": JobEvent.FAILED,
        "STOPPED": JobEvent.CANCELLED,
    }
)
RAY_DEPLOYMENTS: Final[Mapping[str, JobEvent | None]] = MappingProxyType(
    {
        "Initializing": JobEvent.SUBMITTED,
        "Waiting": JobEvent.SUBMITTED,
        "Suspending": JobEvent.SUBMITTED,
        "Suspended": JobEvent.SUBMITTED,
        "Running": JobEvent.STARTED,
        "Complete": None,  # how it ended is in the other table
        "Failed": JobEvent.FAILED,
        "ValidationFailed": JobEvent.FAILED,
        "Retrying": None,
    }
)

# Of `pod.status.reason`, where the condition above is not there.
# Source: Kubernetes, pkg/kubelet and pkg/util/node; "Node shutdowns", kubernetes.io/docs/concepts/cluster-administration/node-shutdown.
_TAKEN_BACK: Final = frozenset(
    {"Evicted", "Terminated", "Shutdown", "NodeShutdown", "NodeLost", "Preempting"}
)
_NOT_ADMITTED: Final = re.compile(r"OutOf\w+|UnexpectedAdmissionError|NodeAffinity|Node\w*Failed")

_OUT_OF_MEMORY: Final = (
    "OOMKilled: it used more memory than was asked for; raise memory_gib of its resources"
)
_SIGNALLED: Final = frozenset({137, 143})
_BY_EXIT_CODE: Final = re.compile(
    r"(?:for pod \S*?/(?P<pod>\S+) )?failed with exit code (?P<code>-?\d+)"
)
_BY_CONDITION: Final = re.compile(r"[Pp]od \S*?/(?P<pod>\S+) has condition DisruptionTarget")


def observation(
    workload: Manifest | None,
    pods: Sequence[Manifest],
    now: datetime,
    *,
    departed: Sequence[Manifest] = (),
    start_within: timedelta | None = None,
    evicted: str = "",
    stuck: str = "",
) -> Observation:
    """Return what is seen of a lease.

    Args:
        workload: Its Job, JobSet or RayJob; None where there is none.
        pods: Those of it that are still known.
        now: When they were asked for.
        departed: Those that are gone, as they were last seen: whoever takes a pod away deletes it, with its last words.
        start_within: How long it may wait to start.
        evicted: Why Kueue took back what it had admitted; empty where it did not.
        stuck: Why it has no pods, where the cluster says so.
    """
    if workload is None:
        return _seen(JobEvent.VANISHED, now, "not known to the Kubernetes cluster")
    said = f"{workload['kind']} {workload['metadata']['name']}"
    event, message = state_of(workload)
    if event is JobEvent.SUCCEEDED:
        return _seen(event, now, f"{said} is complete", code=0)
    if event is JobEvent.FAILED:
        return _failed(message, pods, departed, now, said)
    if workload["metadata"].get("deletionTimestamp") or event is JobEvent.CANCELLED:
        return _seen(JobEvent.CANCELLED, now, f"{said} was deleted")
    over = _why_over(workload, pods, departed, now, evicted=evicted, stuck=stuck)
    if over is not None:
        return _seen(over[0], now, f"{said}: {over[1]}")
    seen = _live(event, pods, now, said, stuck or message)
    return _give_up_waiting(seen, workload, start_within)


def state_of(workload: Manifest) -> tuple[JobEvent | None, str]:
    """Return what the object itself says, and in what words; None while its pods say more."""
    status = part(workload, "status")
    if workload["kind"] == "RayJob":
        return _state_of_ray_job(status)
    true = {one["type"]: one for one in items(status, "conditions") if one["status"] == "True"}
    for name in CONDITIONS:
        if name in true:
            said = f"{true[name].get('reason', '')}: {true[name].get('message', '')}"
            return CONDITIONS[name], said.strip(": ")
    return None, ""


def is_finished(workload: Manifest) -> bool:
    """Return whether it holds no capacity any more, and never will again."""
    return state_of(workload)[0] in {JobEvent.SUCCEEDED, JobEvent.FAILED, JobEvent.CANCELLED}


def is_live(workload: Manifest) -> bool:
    """Return whether it holds capacity, or waits for it."""
    return not is_finished(workload) and not workload["metadata"].get("deletionTimestamp")


def is_end(seen: Observation) -> bool:
    """Return whether an observation ends its lease."""
    return seen.event not in {None, JobEvent.SUBMITTED, JobEvent.STARTED}


def key_of(workload: Manifest) -> str | None:
    """Return the key of an object of ours."""
    return text(part(workload["metadata"], "annotations"), naming.KEY) or None


def nodes_of(workload: Manifest) -> int:
    """Return how many nodes an object of ours is for."""
    said = text(part(workload["metadata"], "annotations"), naming.NODES)
    return int(said) if said.isdigit() else 1


def evictions(workloads: Iterable[Manifest]) -> dict[str, str]:
    """Return why Kueue took back what it had admitted, by the uid of the object that it had admitted.

    Source: Kueue, "Workload", https://kueue.sigs.k8s.io/docs/concepts/workload; `Requeued` stays when it may run again.
    """
    found: dict[str, str] = {}
    for workload in workloads:
        for condition in items(part(workload, "status"), "conditions"):
            if condition["type"] in {"Evicted", "Requeued"} and condition["status"] == "True":
                said = f"{condition.get('reason', '')}: {condition.get('message', '')}"
                for owner in items(workload["metadata"], "ownerReferences"):
                    found.setdefault(str(owner["uid"]), said)
    return found


def _why_over(
    workload: Manifest,
    pods: Sequence[Manifest],
    departed: Sequence[Manifest],
    now: datetime,
    *,
    evicted: str,
    stuck: str,
) -> tuple[JobEvent, str] | None:
    """Return how and why a lease is over although its object goes on; None when it is not."""
    if evicted:
        return JobEvent.PREEMPTED, f"Kueue took it back: {evicted}"
    if workload["kind"] == "Job" and _is_replaced(nodes_of(workload), pods, departed):
        return JobEvent.PREEMPTED, "its pod was taken away, and the cluster has begun another"
    created = moment(workload["metadata"].get("creationTimestamp"), now)
    if why := pods_of.never_made(stuck, created, now):
        return JobEvent.FAILED, why
    return None


def _is_replaced(nodes: int, pods: Sequence[Manifest], departed: Sequence[Manifest]) -> bool:
    """Return whether a Job got a pod in another's place, as without a failure policy: two might then write as one lease."""
    return bool(pods) and len({pod["metadata"]["name"] for pod in [*pods, *departed]}) > nodes


def _state_of_ray_job(status: Manifest) -> tuple[JobEvent | None, str]:
    job, deployment = status.get("jobStatus", ""), status.get("jobDeploymentStatus", "")
    said = f"{deployment} {job} {status.get('reason', '')}: {status.get('message', '')}"
    event = RAY_JOBS.get(job)
    if event in {None, JobEvent.SUBMITTED, JobEvent.STARTED}:
        found = RAY_DEPLOYMENTS.get(deployment)
        event = event if found is None else found
    return event, " ".join(said.split()).strip(": ")


def _give_up_waiting(
    seen: Observation, workload: Manifest, start_within: timedelta | None
) -> Observation:
    created = moment(workload["metadata"].get("creationTimestamp"), seen.seen_at)
    if seen.event is not JobEvent.SUBMITTED or start_within is None:
        return seen
    if seen.seen_at - created <= start_within:
        return seen
    detail = f"{seen.detail}; it has not started within {start_within}"
    return _seen(JobEvent.PREEMPTED, seen.seen_at, detail)


def _failed(
    message: str,
    there: Sequence[Manifest],
    departed: Sequence[Manifest],
    now: datetime,
    said: str,
) -> Observation:
    """Tell why it failed: what the object says of it first, then what its pods say."""
    by_exit_code = _BY_EXIT_CODE.search(message)
    by_condition = _BY_CONDITION.search(message)
    named = by_exit_code or by_condition
    pod = pods_of.that_failed([*there, *departed], named["pod"] if named else None)
    code = _unsigned(int(by_exit_code["code"])) if by_exit_code else pods_of.exit_code(pod)
    told = by_exit_code is not None and code not in _SIGNALLED
    if by_condition or (pod is not None and not told and pods_of.disruption(pod)):
        return _disrupted(pod, now, said, message)
    # A failed pod stays as long as its Job does, unless somebody deletes it.
    is_deleted = pod is None or pod in departed or bool(pod["metadata"].get("deletionTimestamp"))
    event, why = _meaning_of_exit(code, pod, is_deleted=is_deleted)
    return _seen(event, now, f"{said} failed ({message}): {why}", code=code)


def _meaning_of_exit(
    code: int | None, pod: Manifest | None, *, is_deleted: bool
) -> tuple[JobEvent, str]:
    status = part(pod, "status")
    reason, ended = str(status.get("reason", "")), pods_of.terminated(pod)
    meanings: list[tuple[bool, JobEvent, str]] = [
        (code == PREEMPTED, JobEvent.PREEMPTED, "it stopped because its capacity is taken back"),
        (ended.get("reason") == "OOMKilled", JobEvent.FAILED, _OUT_OF_MEMORY),
        (reason in _TAKEN_BACK, JobEvent.PREEMPTED, f"{reason}: {status.get('message', '')}"),
        (
            _NOT_ADMITTED.fullmatch(reason) is not None,
            JobEvent.PREEMPTED,
            f"its node did not take it, {reason}",
        ),
        (is_deleted and code in _SIGNALLED, JobEvent.PREEMPTED, "somebody deleted its pod"),
        (code is None, JobEvent.VANISHED, "no pod of it is left to say how it ended"),
    ]
    failed = JobEvent.FAILED, f"exit code {code} {ended.get('message', '')}".strip()
    return next(((event, why) for holds, event, why in meanings if holds), failed)


def _disrupted(pod: Manifest | None, now: datetime, said: str, message: str) -> Observation:
    condition = (pods_of.disruption(pod) if pod else None) or {}
    reason = str(condition.get("reason", "DisruptionTarget"))
    event, why = DISRUPTIONS.get(reason, (JobEvent.PREEMPTED, "its capacity was taken back"))
    words = condition.get("message") or message
    return _seen(event, now, f"{said}: {reason}, {why} ({words})", code=pods_of.exit_code(pod))


def _live(
    event: JobEvent | None, pods: Sequence[Manifest], now: datetime, said: str, message: str
) -> Observation:
    """Return what the pods say of an object that has not ended."""
    for pod in pods:
        if (seen := _hopeless(pod, now, said)) is not None:
            return seen
    phases = {pods_of.phase(pod) for pod in pods}
    if "Running" in phases or event is JobEvent.STARTED:
        return _seen(JobEvent.STARTED, now, f"{said}: {pods_of.going(pods)}")
    if phases and phases <= FINISHED:
        return _seen(None, now, f"{said}: it is ending")
    if phases <= {"Pending", *FINISHED}:
        why = pods_of.waiting(pods) or message or "it waits for its pods"
        return _seen(JobEvent.SUBMITTED, now, f"{said}: {why}")
    return _seen(None, now, f"{said}: its pods are {sorted(phases)}")


def _hopeless(pod: Manifest, now: datetime, said: str) -> Observation | None:
    """Return what a pod says from which nothing more will come; None when it may go on."""
    phase = pods_of.phase(pod)
    if phase == "Failed" and pods_of.disruption(pod):
        return _disrupted(pod, now, said, "")
    if phase in FINISHED:
        return None
    if why := pods_of.blocked(pod, now):
        return _seen(JobEvent.FAILED, now, f"{said}: {why}")
    if pods_of.is_lost(pod, now):
        why = "its node does not answer, and it may run on unseen"
        return _seen(JobEvent.VANISHED, now, f"{said}: {why}")
    return None


def _unsigned(code: int) -> int:
    """Return the exit code as a shell has it; Ray writes -15 for a signal."""
    return code if code >= 0 else 128 - code


def _seen(
    event: JobEvent | None, now: datetime, detail: str, *, code: int | None = None
) -> Observation:
    return Observation(event=event, seen_at=now, exit_code=code, detail=detail)
