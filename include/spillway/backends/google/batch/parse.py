"""What the answers of Google Cloud Batch mean for a lease. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.google import containers
from spillway.backends.google.naming import KEY_VARIABLE
from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

# Source: Google Cloud, Batch API, JobStatus.State;
# cloud.google.com/batch/docs/reference/rest/v1/projects.locations.jobs#State_2
# A state that is not here is reported as unknown, not guessed.
EVENTS: Final[Mapping[str, JobEvent | None]] = MappingProxyType(
    {
        "STATE_UNSPECIFIED": None,
        "QUEUED": JobEvent.SUBMITTED,
        "SCHEDULED": JobEvent.SUBMITTED,
        "RUNNING": JobEvent.STARTED,
        "SUCCEEDED": JobEvent.SUCCEEDED,
        "FAILED": JobEvent.FAILED,
        "CANCELLED": JobEvent.CANCELLED,
        "CANCELLATION_IN_PROGRESS": None,  # machines go on for a while; it is over when they are gone
        "DELETION_IN_PROGRESS": None,
    }
)

ENDS: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
"""States in which a job holds nothing any more."""

# Source: Google Cloud, Batch, "Troubleshooting", "Task failed with a reserved exit code";
# cloud.google.com/batch/docs/troubleshooting#reserved-exit-codes
RESERVED_EXIT_CODES: Final[Mapping[int, tuple[JobEvent, str]]] = MappingProxyType(
    {
        50001: (JobEvent.PREEMPTED, "a spot machine was preempted"),
        50002: (JobEvent.VANISHED, "a machine does not report any more, and may run on"),
        50003: (JobEvent.VANISHED, "a machine was started anew under the job"),
        50004: (JobEvent.VANISHED, "task and machine do not answer, and may run on"),
        50005: (JobEvent.PREEMPTED, "it ran for as long as max_run allows"),
        50006: (JobEvent.VANISHED, "a machine was made anew under the job"),
    }
)

_CAPACITY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "QUOTA_EXCEEDED": "the project's quota is used up; ask Google for more, or let fewer slots be in the pool",
        "RESOURCE_POOL_EXHAUSTED": "Google has no such machines there now",
    }
)
_REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CODE_MACHINE_TYPE_NOT_FOUND": "correct the option machine_type, region or zones",
        "CODE_GCE_PERMISSION_DENIED": "the project's Batch service agent may not make such machines",
        "CODE_SERVICE_ACCOUNT_MISMATCH": "correct the option service_account",
        "CODE_GCE_RESERVATION_NOT_FOUND": "correct the option reservation",
    }
)

_EXIT_CODE: Final = re.compile(r"exit code (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as Batch describes it.

    Attributes:
        uid: Batch's own name for it, unlike that of any other job.
        key: Ours; None where somebody else made the job.
        said: Batch's words on what happened, oldest first.
        exit_codes: Other than 0, in the order in which tasks ended.
    """

    name: str
    uid: str
    key: str | None
    state: str
    nodes: int
    created_at: datetime
    said: tuple[str, ...] = ()
    exit_codes: tuple[int, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether it holds capacity, or waits for it."""
        return self.state not in ENDS

    @property
    def is_ending(self) -> bool:
        """Whether it is on its way to an end already, where Batch refuses to cancel it."""
        return self.state in {"CANCELLATION_IN_PROGRESS", "DELETION_IN_PROGRESS"}

    @property
    def needs_tasks(self) -> bool:
        """Whether only its tasks can say how it failed."""
        return self.state == "FAILED" and not self.exit_codes


def job_row(job: Any) -> JobRow:
    """Return what a `batch_v1.Job` says."""
    group = job.task_groups[0] if job.task_groups else None
    key = group.task_spec.environment.variables.get(KEY_VARIABLE) if group else None
    events = sorted(job.status.status_events, key=lambda event: event.event_time)
    return JobRow(
        name=job.name.rpartition("/")[2],
        uid=job.uid,
        key=key,
        state=getattr(job.status.state, "name", str(job.status.state)),
        nodes=int(group.task_count or 1) if group else 1,
        created_at=job.create_time,
        said=tuple(event.description for event in events),
        exit_codes=exit_codes(events),
    )


def exit_codes(events: Iterable[Any]) -> tuple[int, ...]:
    """Return the exit codes other than 0 that `StatusEvent`s tell, in a field or only in words."""
    found: list[int] = []
    for event in events:
        code = event.task_execution.exit_code if event.task_execution else 0
        found += [code] if code else [int(said) for said in _EXIT_CODE.findall(event.description)]
    return tuple(dict.fromkeys(code for code in found if code))


def observation(
    row: JobRow, now: datetime, *, start_within: timedelta | None, waits_for_capacity: bool
) -> Observation:
    """Return what the job's description means for its lease.

    Args:
        row: The job.
        now: When it was asked.
        start_within: How long it may wait for machines.
        waits_for_capacity: Whether waiting for machines is what was asked for, as by flex-start.
    """
    event = EVENTS.get(row.state)
    said = f"Batch says {row.state} of job {row.name}"
    if event is JobEvent.FAILED:
        return _failure(row, now, said)
    if event is JobEvent.SUBMITTED:
        return _waiting(row, now, said, None if waits_for_capacity else _lack(row), start_within)
    code = 0 if event is JobEvent.SUCCEEDED else None
    return Observation(event=event, seen_at=now, exit_code=code, detail=said)


def _failure(row: JobRow, now: datetime, said: str) -> Observation:
    lack, last = _lack(row), row.said[-1] if row.said else "no reason given"
    reserved = [code for code in row.exit_codes if code in RESERVED_EXIT_CODES]
    if reserved:  # what the other members of a gang ended with are its consequences
        event, why = RESERVED_EXIT_CODES[min(reserved)]
        return Observation(event=event, seen_at=now, detail=f"{said}: {why} ({min(reserved)})")
    if row.exit_codes:
        code = row.exit_codes[0]
        event = JobEvent.PREEMPTED if code == PREEMPTED else JobEvent.FAILED
        detail = f"{said}: {containers.said(code)}"
        return Observation(event=event, seen_at=now, exit_code=code, detail=detail)
    if lack:
        detail = f"{said}: {lack}: {last}"
        return Observation(event=JobEvent.PREEMPTED, seen_at=now, detail=detail)
    remedies = [f"{remedy}: " for code, remedy in _REMEDIES.items() if code in " ".join(row.said)]
    detail = f"{said}: {''.join(remedies)}{last}"
    return Observation(event=JobEvent.FAILED, seen_at=now, detail=detail)


def _waiting(
    row: JobRow, now: datetime, said: str, lack: str | None, start_within: timedelta | None
) -> Observation:
    if lack:
        return Observation(
            event=JobEvent.PREEMPTED, seen_at=now, detail=f"{said}: {lack}: {row.said[-1]}"
        )
    if start_within is not None and now - row.created_at > start_within:
        detail = f"{said}: it has not started within {start_within}"
        return Observation(event=JobEvent.PREEMPTED, seen_at=now, detail=detail)
    return Observation(event=JobEvent.SUBMITTED, seen_at=now, detail=said)


def _lack(row: JobRow) -> str | None:
    """Return what there was too little of, by the job's events; None when they say nothing of it."""
    words = " ".join(row.said)
    return next((remedy for mark, remedy in _CAPACITY.items() if mark in words), None)
