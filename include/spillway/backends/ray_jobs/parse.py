"""What Ray's description of a job means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from spillway.backends.ray_jobs import naming
from spillway.backends.ray_jobs.failures import ENTRY_POINT_FAILED, meaning
from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

# Source: Ray, class JobStatus, docs.ray.io/en/latest/cluster/running-applications/job-submission/doc/
# ray.job_submission.JobStatus.html. A state that is not here is reported as unknown, not guessed.
EVENTS: Final[Mapping[str, JobEvent]] = MappingProxyType(
    {
        "PENDING": JobEvent.SUBMITTED,
        "RUNNING": JobEvent.STARTED,
        "STOPPED": JobEvent.CANCELLED,
        "SUCCEEDED": JobEvent.SUCCEEDED,
        "FAILED": JobEvent.FAILED,
    }
)
LIVE: Final = frozenset({"PENDING", "RUNNING"})

_NO_RUNTIME: Final = "No module named spillway"
_LONGEST_DETAIL: Final = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as Ray describes it.

    Attributes:
        submission_id: Our name of it; empty for what was not submitted through the Jobs API.
        submitted_at: When it was handed in; None when Ray does not say.
    """

    submission_id: str
    status: str
    message: str
    error_type: str | None
    exit_code: int | None
    submitted_at: datetime | None
    metadata: Mapping[str, Any]

    @property
    def is_live(self) -> bool:
        """Whether it holds capacity, or waits for some."""
        return self.status in LIVE

    @property
    def nodes(self) -> int:
        """How many slots of its pool it takes."""
        return int(self.metadata.get(naming.NODES, 1))


def row(answer: Mapping[str, Any]) -> JobRow:
    """Return the job that one element of `GET /api/jobs/` describes."""
    started = answer.get("start_time")
    code = answer.get("driver_exit_code")
    return JobRow(
        submission_id=str(answer.get("submission_id") or ""),
        status=str(answer["status"]),
        message=str(answer.get("message") or ""),
        error_type=answer.get("error_type"),
        exit_code=None if code is None else int(code),
        submitted_at=None if started is None else datetime.fromtimestamp(started / 1000, UTC),
        metadata=answer.get("metadata") or {},
    )


def observation(
    job: JobRow | None, now: datetime, *, start_within: timedelta | None
) -> Observation:
    """Return what is seen of a job; None is one that Ray does not know."""
    if job is None:
        return Observation(event=JobEvent.VANISHED, seen_at=now, detail="not known to Ray")
    if job.status == "FAILED":
        return _failure(job, now)
    event = EVENTS.get(job.status)
    detail = f"Ray says {job.status}: {job.message}"[:_LONGEST_DETAIL]
    if event is JobEvent.SUBMITTED and _waits_too_long(job, now, start_within):
        event, detail = JobEvent.PREEMPTED, f"it did not start within {start_within}; {detail}"
    return Observation(event=event, seen_at=now, exit_code=job.exit_code, detail=detail)


def _failure(job: JobRow, now: datetime) -> Observation:
    event, remedy = meaning(job.error_type, job.message, job.exit_code)
    if event is JobEvent.FAILED and job.exit_code == PREEMPTED:
        event = JobEvent.PREEMPTED
    if job.error_type == ENTRY_POINT_FAILED and _NO_RUNTIME in job.message:
        remedy = "install spillway on the cluster's nodes, in the image, or by the option pip"
    words = job.message[-_LONGEST_DETAIL:] if job.exit_code is not None else job.message
    detail = f"Ray says {job.error_type or job.status}: {words[:_LONGEST_DETAIL]}"
    return Observation(
        event=event,
        seen_at=now,
        exit_code=job.exit_code,
        detail=f"{detail}; {remedy}" if remedy else detail,
    )


def _waits_too_long(job: JobRow, now: datetime, start_within: timedelta | None) -> bool:
    if start_within is None or job.submitted_at is None:
        return False
    return now - job.submitted_at > start_within
