"""What the answers of SkyPilot's API server mean for a lease. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import yaml

from spillway.backends.skypilot import naming
from spillway.backends.skypilot.failures import Failure, Kind
from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

# Source: SkyPilot, "Cluster lifecycle", and sky/utils/status_lib.py, ClusterStatus.
# docs.skypilot.co/en/latest/examples/interactive-development.html; a state that is not here is reported as unknown.
CLUSTERS: Final[Mapping[str, JobEvent]] = MappingProxyType(
    {
        "PENDING": JobEvent.SUBMITTED,
        "INIT": JobEvent.SUBMITTED,
        "UP": JobEvent.STARTED,
        "AUTOSTOPPING": JobEvent.STARTED,  # its job is over, and the machines are still there
        "STOPPED": JobEvent.PREEMPTED,  # we never stop one
    }
)
REACHABLE: Final = frozenset({"UP", "AUTOSTOPPING"})
"""States of clusters that can be asked about their jobs."""

# Source: SkyPilot, sky/skylet/job_lib.py, JobStatus; docs.skypilot.co/en/latest/reference/job-queue.html.
JOBS: Final[Mapping[str, JobEvent]] = MappingProxyType(
    {
        "INIT": JobEvent.SUBMITTED,
        "PENDING": JobEvent.SUBMITTED,
        "SETTING_UP": JobEvent.SUBMITTED,
        "RUNNING": JobEvent.STARTED,
        "SUCCEEDED": JobEvent.SUCCEEDED,
        "FAILED": JobEvent.FAILED,
        "FAILED_SETUP": JobEvent.FAILED,
        "FAILED_DRIVER": JobEvent.VANISHED,  # what watched it is gone, and nobody saw how it ended
        "CANCELLED": JobEvent.CANCELLED,
    }
)
OVER: Final = frozenset({"SUCCEEDED", "FAILED", "FAILED_SETUP", "FAILED_DRIVER", "CANCELLED"})

ACTIVE: Final = frozenset({"PENDING", "WAITING", "RUNNING"})
"""States of requests that go on. Source: SkyPilot, sky/server/requests/requests.py, RequestStatus."""

LAUNCH: Final = "sky.launch"
_ENDINGS: Final = frozenset({"sky.down", "sky.stop"})
_CODES: Final = re.compile(r"Job \d+ failed with return code list:\S*\s*\[([-\d, ]+)\]")
_COLOUR: Final = r"(?:\x1b\[[0-9;]*m)*"
_SPEAKER: Final = re.compile(rf"^{_COLOUR}\([^()\n]*\bpid=\d+[^()\n]*\){_COLOUR} ", re.MULTILINE)
_ENDED_WITH_OTHERS: Final = 137


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster as `POST /status` describes it.

    Attributes:
        was_up: Whether its machines were ever all there.
        is_unhealthy: Whether machines that were there are missing or broken.
        reason: SkyPilot's words for why it is not up.
        key, pool: Ours; None where somebody else made it.
    """

    name: str
    status: str
    nodes: int
    launched_at: datetime
    was_up: bool
    is_unhealthy: bool
    reason: str
    key: str | None
    pool: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to the API server, such as a launch, which goes on for minutes after it was taken.

    Attributes:
        nodes: How many a launch asks for.
        failure: Why it failed; None when it did not, or was not asked.
    """

    id: str
    name: str
    status: str
    cluster: str
    created_at: datetime
    nodes: int = 1
    failure: Failure | None = None

    @property
    def is_active(self) -> bool:
        """Whether it goes on."""
        return self.status in ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What a cluster said of its one job.

    Attributes:
        exit_code: None unless it failed by itself, and its output says with what.
    """

    status: str
    exit_code: int | None = None


def cluster(answer: Mapping[str, Any]) -> Cluster:
    """Return the cluster that one element of a status describes."""
    variables = _variables(answer.get("last_creation_yaml"))
    return Cluster(
        name=str(answer["name"]),
        status=str(answer["status"]),
        nodes=int(answer.get("nodes") or variables.get(naming.NODES_VARIABLE) or 1),
        launched_at=datetime.fromtimestamp(float(answer["launched_at"]), UTC),
        was_up=bool(answer.get("cluster_ever_up")),
        is_unhealthy=answer.get("init_kind") == "unhealthy",
        reason=str(answer.get("init_status_reason") or answer.get("last_event") or ""),
        key=variables.get(naming.KEY_VARIABLE),
        pool=variables.get(naming.POOL_VARIABLE),
    )


def request(answer: Mapping[str, Any]) -> Request:
    """Return the request that one element of `GET /api/status` describes."""
    return Request(
        id=str(answer["request_id"]),
        name=str(answer["name"]),
        status=str(answer["status"]),
        cluster=str(answer.get("cluster_name") or ""),
        created_at=datetime.fromtimestamp(float(answer["created_at"]), UTC),
        nodes=_nodes(answer.get("request_body")),
    )


def job_state(answer: Mapping[str, Any]) -> str | None:
    """Return the state of the cluster's first job, which is ours; None before there is one."""
    told = answer.get("1")
    return None if told is None else str(told)


def exit_code(output: str) -> int | None:
    """Return the exit code that SkyPilot wrote under a job's output; a gang's is that of the first that failed by itself."""
    found = _CODES.findall(output)
    if not found:
        return None
    codes = [int(code) for code in found[-1].split(",") if int(code)]
    return next((code for code in codes if code != _ENDED_WITH_OTHERS), codes[0] if codes else 0)


def spoken(output: str) -> str:
    """Return a job's output without the names of those who print, which SkyPilot writes before each line."""
    return _SPEAKER.sub("", output)


def observation(  # all that is known of one job
    *,
    found: Cluster | None,
    job: JobState | None,
    requests: Sequence[Request] | None,
    spot: bool,
    now: datetime,
    start_within: timedelta | None,
) -> Observation:
    """Return what is known of a job means for its lease.

    Args:
        found: Its cluster, if there is one.
        job: What the cluster says of it, if that was asked.
        requests: What was asked of SkyPilot for the cluster: every launch that goes on, or all of a day. None when it was not
            looked up, as for those that are up.
        spot: Whether the cloud may take the machines back.
        now: When SkyPilot was asked, by its own clock, which stamps what it tells.
        start_within: How long it may wait for machines.
    """
    asked = requests or ()
    launches = [one for one in asked if one.name == LAUNCH]
    launch = max(launches, key=lambda one: one.created_at, default=None)
    code = None
    if found is not None and found.status in REACHABLE:
        event, said, code = _with_job(job) if job is not None else _before_its_job(launch)
    elif requests is None:
        event, said = None, "what became of its machines is to be looked up: others are before it"
    elif found is None:
        event, said = _without_cluster(launch, asked, spot=spot)
    else:
        event, said = _not_up(found, launch, asked, spot=spot)
    if event is JobEvent.SUBMITTED and start_within is not None:
        since = min(
            (one.created_at for one in launches), default=found.launched_at if found else now
        )
        if now - since > start_within:
            event, said = JobEvent.PREEMPTED, f"{said}: it has not started within {start_within}"
    return Observation(event=event, seen_at=now, exit_code=code, detail=said)


def _before_its_job(launch: Request | None) -> tuple[JobEvent | None, str, int | None]:
    """Machines are there, and of the job nothing was heard: it is still to begin, or it was not its turn to be asked."""
    if launch is not None and launch.is_active:
        return JobEvent.SUBMITTED, "SkyPilot makes its machines ready", None
    if launch is not None and launch.failure is not None:
        return *_failed(launch.failure), None
    return None, "SkyPilot says that the machines are there, and not how the job is", None


def _with_job(job: JobState) -> tuple[JobEvent | None, str, int | None]:
    event, code = JOBS.get(job.status), job.exit_code
    said = f"SkyPilot says {job.status}"
    if event is JobEvent.SUCCEEDED:
        code = 0
    if job.status == "FAILED":
        said = f"{said}, with exit code {code}"
        event = JobEvent.PREEMPTED if code == PREEMPTED else event
    if job.status == "FAILED_SETUP":
        said += ": correct the option setup"
    if code == _ENDED_WITH_OTHERS:
        said += ", SIGKILL: most likely it ran out of memory; take a larger instance_type"
    return event, said, code


def _not_up(
    found: Cluster, launch: Request | None, requests: Iterable[Request], *, spot: bool
) -> tuple[JobEvent | None, str]:
    said = f"SkyPilot says {found.status}{': ' if found.reason else ''}{found.reason}"
    if launch is not None and launch.is_active:
        return JobEvent.SUBMITTED, said
    if launch is not None and launch.failure is not None:
        return _failed(launch.failure)
    if launch is not None and launch.status == "CANCELLED":
        return JobEvent.CANCELLED, f"its launch was cancelled: {said}"
    if found.status == "INIT" and (found.was_up or found.is_unhealthy):
        taken = spot and not _given_back(requests)
        return (JobEvent.PREEMPTED if taken else JobEvent.VANISHED), f"machines are gone: {said}"
    return CLUSTERS.get(found.status), said


def _without_cluster(
    launch: Request | None, requests: Sequence[Request], *, spot: bool
) -> tuple[JobEvent | None, str]:
    if launch is None:
        return JobEvent.VANISHED, "not known to SkyPilot"
    if launch.is_active or launch.status == "CANCELLED":
        event = JobEvent.SUBMITTED if launch.is_active else JobEvent.CANCELLED
        return event, f"SkyPilot's launch is {launch.status}"
    if launch.failure is not None:
        return _failed(launch.failure)
    if _given_back(requests):
        return JobEvent.VANISHED, "its machines were given back"
    if spot:
        return JobEvent.PREEMPTED, "the cloud took its machines back"
    return JobEvent.VANISHED, "its machines are gone"


def _given_back(requests: Iterable[Request]) -> bool:
    return any(one.name in _ENDINGS and one.status != "FAILED" for one in requests)


def _failed(reason: Failure) -> tuple[JobEvent | None, str]:
    """Tell a launch that found no room, after which the task goes elsewhere, from one that nobody can make succeed."""
    match reason.kind:
        case Kind.NO_ROOM | Kind.QUOTA | Kind.LATER:
            return JobEvent.PREEMPTED, f"it did not start: {reason}"
        case Kind.CANCELLED:
            return JobEvent.CANCELLED, str(reason)
        case Kind.GONE:
            return JobEvent.VANISHED, str(reason)
        case _:
            return JobEvent.FAILED, f"it did not start: {reason}"


def _variables(text: object) -> Mapping[str, str]:
    """Return the environment variables of a task; none where it cannot be read, for then it is not ours."""
    try:
        loaded: object = yaml.safe_load(str(text or ""))
    except yaml.YAMLError:
        return {}
    variables = _fields(_fields(loaded).get("envs"))
    return {name: str(value) for name, value in variables.items()}


def _nodes(body: object) -> int:
    """Return how many nodes a launch asks for; 1 where it is not told, since others' requests are not shown."""
    try:
        asked = _fields(json.loads(str(body or "{}")))
        return int(_variables(asked.get("task")).get(naming.NODES_VARIABLE, 1))
    except ValueError:
        return 1


def _fields(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}
