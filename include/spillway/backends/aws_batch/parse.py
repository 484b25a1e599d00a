"""What AWS Batch's answers mean for a lease. All pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

# Source: AWS Batch, "Job states", docs.aws.amazon.com/batch/latest/userguide/job_states.html
# A state that is not here is reported as unknown, not guessed.
EVENTS: Final[Mapping[str, JobEvent]] = MappingProxyType(
    {
        "SUBMITTED": JobEvent.SUBMITTED,
        "PENDING": JobEvent.SUBMITTED,
        "RUNNABLE": JobEvent.SUBMITTED,
        "STARTING": JobEvent.SUBMITTED,
        "RUNNING": JobEvent.STARTED,
        "SUCCEEDED": JobEvent.SUCCEEDED,
        "FAILED": JobEvent.FAILED,  # `ENDS` tells why
    }
)
LIVE: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")

# What a failed job's reasons tell, the first that fits. Sources: AWS Batch, "Automated job retries",
# docs.aws.amazon.com/batch/latest/userguide/job_retries.html (spot); "Job timeouts", job_timeouts.html; Amazon ECS, "Stopped tasks error messages",
# docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html.
ENDS: Final[tuple[tuple[str, JobEvent, str], ...]] = (
    (r"^Host EC2.*terminated", JobEvent.PREEMPTED, "its instance was taken back"),
    (
        r"OutOfMemoryError",
        JobEvent.FAILED,
        "it used more memory than was asked for; raise memory_gib of its resources",
    ),
    (
        r"CannotPull\w*Error",
        JobEvent.FAILED,
        "the image could not be pulled; correct the option image, or what the execution role may read",
    ),
    (
        r"ResourceInitializationError",
        JobEvent.FAILED,
        "a secret, the image or the log could not be reached; look at the execution role and the network",
    ),
    # The pool gives no more than that at a time; the task goes on in the next lease.
    (r"attempt duration exceeded timeout", JobEvent.PREEMPTED, "it ran for as long as time_limit"),
)

# A job that waits with such a reason waits for ever.
# Source: AWS Batch, `JobDetail.statusReason`, docs.aws.amazon.com/batch/latest/APIReference/API_JobDetail.html
_CANNOT_START: Final = re.compile(r"MISCONFIGURATION:")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as a list of the queue has it.

    Attributes:
        is_stopping: Whether it was asked to stop, and may go on for some seconds.
        nodes: How many instances it has, or asks for.
    """

    job_id: str
    name: str
    status: str
    created_ms: int
    is_stopping: bool = False
    nodes: int = 1

    @property
    def is_live(self) -> bool:
        """Whether it holds capacity, or waits for it, and will go on to."""
        return self.status in LIVE and not self.is_stopping


def job_row(summary: Mapping[str, Any]) -> JobRow:
    """Return an entry of an answer to `ListJobs`."""
    return JobRow(
        job_id=str(summary["jobId"]),
        name=str(summary["jobName"]),
        status=str(summary.get("status", "")),
        created_ms=int(summary.get("createdAt", 0)),
        is_stopping=_was_stopped(summary),
        nodes=int(_fields(summary, "nodeProperties").get("numNodes", 1)),
    )


def earliest(rows: Iterable[JobRow]) -> JobRow | None:
    """Return the job that counts, of those with one name: who came first."""
    return min(rows, key=lambda row: (row.created_ms, row.job_id), default=None)


def is_gang(detail: Mapping[str, Any]) -> bool:
    """Return whether the job has nodes, each described by itself."""
    return bool(_fields(detail, "nodeProperties"))


def main_node(job_id: str) -> str:
    """Return the name of a gang's main node."""
    return f"{job_id}#0"


def log_stream(detail: Mapping[str, Any] | None) -> str | None:
    """Return where the output of a job, or of a node, is; None while there is none."""
    stream = _fields(detail or {}, "container").get("logStreamName")
    return str(stream) if stream else None


def tags_of(detail: Mapping[str, Any]) -> dict[str, str]:
    """Return the job's tags."""
    return {str(name): str(value) for name, value in _fields(detail, "tags").items()}


def observation(
    detail: Mapping[str, Any] | None,
    now: datetime,
    *,
    node: Mapping[str, Any] | None = None,
    start_within: timedelta | None = None,
) -> Observation:
    """Return what the job's description, an entry of `DescribeJobs`, means for its lease; None is a job that Batch forgot.

    `node` is the description of a gang's main node, whose end is the gang's.
    """
    if detail is None:
        return Observation(event=JobEvent.VANISHED, seen_at=now, detail="not known to AWS Batch")
    reasons = _reasons(detail) + ([] if node is None else _reasons(node))
    said = f"AWS Batch says {detail.get('status')} of job {detail.get('jobId')}"
    said += f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
    event = EVENTS.get(str(detail.get("status")))
    if event is JobEvent.FAILED:
        return _ended(detail, node or detail, reasons, said, now)
    if event is JobEvent.SUCCEEDED:
        return Observation(event=event, seen_at=now, exit_code=0, detail=said)
    event, why = _live(detail, event, reasons, now, start_within)
    return Observation(event=event, seen_at=now, detail=f"{said}: {why}" if why else said)


def _live(
    detail: Mapping[str, Any],
    event: JobEvent | None,
    reasons: list[str],
    now: datetime,
    start_within: timedelta | None,
) -> tuple[JobEvent | None, str]:
    if _was_stopped(detail):
        return None, "it was asked to stop"
    if event is JobEvent.SUBMITTED and any(map(_CANNOT_START.match, reasons)):
        return (
            JobEvent.FAILED,
            "no compute environment of the queue can run it; correct the pool's shape or the queue",
        )
    if event is JobEvent.SUBMITTED and _waits_too_long(detail, now, start_within):
        return JobEvent.PREEMPTED, f"it has not started within {start_within}"
    return event, ""


def _ended(
    detail: Mapping[str, Any],
    container_of: Mapping[str, Any],
    reasons: list[str],
    said: str,
    now: datetime,
) -> Observation:
    found = _fields(container_of, "container").get("exitCode")
    exit_code = None if found is None else int(found)
    if _was_stopped(detail):
        event, why = JobEvent.CANCELLED, "it was stopped"
    elif exit_code == PREEMPTED:
        event, why = JobEvent.PREEMPTED, "it stopped because its capacity is taken back"
    else:
        event, why = _by_reasons(reasons)
    return Observation(
        event=event, seen_at=now, exit_code=exit_code, detail=f"{said}: {why}" if why else said
    )


def _by_reasons(reasons: list[str]) -> tuple[JobEvent, str]:
    for pattern, event, why in ENDS:
        if any(re.search(pattern, reason, re.IGNORECASE) for reason in reasons):
            return event, why
    return JobEvent.FAILED, ""


def _reasons(detail: Mapping[str, Any]) -> list[str]:
    """Return what is said of the job, of its container, and of its attempts."""
    attempts = cast("list[Mapping[str, Any]]", detail.get("attempts") or [])
    found = [detail.get("statusReason"), _fields(detail, "container").get("reason")]
    for attempt in attempts:
        found += [attempt.get("statusReason"), _fields(attempt, "container").get("reason")]
    return [str(reason) for reason in found if reason]


def _was_stopped(job: Mapping[str, Any]) -> bool:
    return bool(job.get("isTerminated") or job.get("isCancelled"))


def _waits_too_long(
    detail: Mapping[str, Any], now: datetime, start_within: timedelta | None
) -> bool:
    created = datetime.fromtimestamp(int(detail.get("createdAt", 0)) / 1000, UTC)
    return start_within is not None and "createdAt" in detail and now - created > start_within


def _fields(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}
