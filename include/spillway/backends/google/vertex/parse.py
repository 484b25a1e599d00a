"""What the answers of Vertex AI mean for a lease. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.google.naming import KEY_VARIABLE
from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

# Source: Google Cloud, Vertex AI API, JobState; cloud.google.com/vertex-ai/docs/reference/rest/v1/JobState
# A state that is not here is reported as unknown, not guessed.
EVENTS: Final[Mapping[str, JobEvent | None]] = MappingProxyType(
    {
        "JOB_STATE_UNSPECIFIED": None,
        "JOB_STATE_QUEUED": JobEvent.SUBMITTED,
        "JOB_STATE_PENDING": JobEvent.SUBMITTED,
        "JOB_STATE_RUNNING": JobEvent.STARTED,
        "JOB_STATE_UPDATING": JobEvent.STARTED,
        "JOB_STATE_SUCCEEDED": JobEvent.SUCCEEDED,
        "JOB_STATE_FAILED": JobEvent.FAILED,
        "JOB_STATE_CANCELLING": None,  # machines go on for a while; it is over when they are gone
        "JOB_STATE_CANCELLED": JobEvent.CANCELLED,
        "JOB_STATE_EXPIRED": JobEvent.PREEMPTED,  # it ran, or waited, for as long as it may
        "JOB_STATE_PAUSED": None,
        "JOB_STATE_PARTIALLY_SUCCEEDED": None,
    }
)

ENDS: Final = (
    "JOB_STATE_SUCCEEDED",
    "JOB_STATE_FAILED",
    "JOB_STATE_CANCELLED",
    "JOB_STATE_EXPIRED",
    "JOB_STATE_PARTIALLY_SUCCEEDED",
)
"""States in which a job holds nothing any more."""

_EXIT_CODE: Final = re.compile(r"non-zero status of (\d+)")

# Words of a failed job's error that tell why it ended, first come first served. Source: Google Cloud, Vertex AI,
# "Troubleshooting", cloud.google.com/vertex-ai/docs/general/troubleshooting; they are words, not an interface.
_WORDS: Final[tuple[tuple[re.Pattern[str], JobEvent, str], ...]] = (
    (re.compile(r"preempt", re.IGNORECASE), JobEvent.PREEMPTED, "its machines were taken back"),
    (
        re.compile(r"insufficient|stockout|not enough resources", re.IGNORECASE),
        JobEvent.PREEMPTED,
        "Google has no such machines there now",
    ),
    (
        re.compile(r"quota", re.IGNORECASE),
        JobEvent.PREEMPTED,
        "the project's quota is used up; ask Google for more, or let fewer slots be in the pool",
    ),
)

# Source: google.rpc.Code: INTERNAL and UNAVAILABLE. The service failed, not the task, whose processes may run on.
_LOST_CODES: Final = frozenset({13, 14})
_MEMORY: Final = (
    "it ran out of memory; raise memory_gib of its resources, or take a larger machine_type"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexRow:
    """One job as Vertex AI describes it.

    Attributes:
        name: The resource's whole name.
        key: Ours; None where somebody else made the job.
        key_label: Digest of our key.
        error: Vertex AI's words for why it failed.
    """

    name: str
    key: str | None
    key_label: str
    state: str
    nodes: int
    created_at: datetime
    error: str = ""
    error_code: int = 0

    @property
    def number(self) -> str:
        """What Vertex AI calls the job, in its region."""
        return self.name.rpartition("/")[2]

    @property
    def is_live(self) -> bool:
        """Whether it holds capacity, or waits for it."""
        return self.state not in ENDS


def vertex_row(job: Any, *, key_label: str) -> VertexRow:
    """Return what an `aiplatform_v1.CustomJob` says; `key_label` is the name of the label with the key's digest."""
    pools = job.job_spec.worker_pool_specs
    said = {one.name: one.value for one in pools[0].container_spec.env} if pools else {}
    return VertexRow(
        name=job.name,
        key=said.get(KEY_VARIABLE),
        key_label=job.labels.get(key_label, ""),
        state=getattr(job.state, "name", str(job.state)),
        nodes=sum(int(pool.replica_count) for pool in pools),
        created_at=job.create_time,
        error=job.error.message if job.error else "",
        error_code=int(job.error.code) if job.error else 0,
    )


def observation(row: VertexRow, now: datetime, *, start_within: timedelta | None) -> Observation:
    """Return what the job's description means for its lease."""
    event = EVENTS.get(row.state)
    said = f"Vertex AI says {row.state} of job {row.number}"
    if event is JobEvent.FAILED:
        return _failure(row, now, said)
    if (
        event is JobEvent.SUBMITTED
        and start_within is not None
        and now - row.created_at > start_within
    ):
        detail = f"{said}: it has not started within {start_within}"
        return Observation(event=JobEvent.PREEMPTED, seen_at=now, detail=detail)
    code = 0 if event is JobEvent.SUCCEEDED else None
    return Observation(event=event, seen_at=now, exit_code=code, detail=said)


def _failure(row: VertexRow, now: datetime, said: str) -> Observation:
    told = " ".join(row.error.split())[:500] or "no reason given"
    found = _EXIT_CODE.search(row.error)
    if found:
        code = int(found[1])
        event = JobEvent.PREEMPTED if code == PREEMPTED else JobEvent.FAILED
        why = f"{_MEMORY}: {told}" if code == 137 or "out-of-memory" in told else told
        return Observation(event=event, seen_at=now, exit_code=code, detail=f"{said}: {why}")
    for words, event, why in _WORDS:
        if words.search(row.error):
            return Observation(event=event, seen_at=now, detail=f"{said}: {why}: {told}")
    event = JobEvent.VANISHED if row.error_code in _LOST_CODES else JobEvent.FAILED
    return Observation(event=event, seen_at=now, detail=f"{said}: {told}")
