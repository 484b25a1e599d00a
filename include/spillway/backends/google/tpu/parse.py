"""What the answers of Cloud TPU mean for a lease. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.google import containers
from spillway.backends.google.tpu.render import NAMESPACE
from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

# Source: Google Cloud, Cloud TPU API, QueuedResourceState.State;
# cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.queuedResources#State
# A state that is not here is reported as unknown, not guessed.
EVENTS: Final[Mapping[str, JobEvent | None]] = MappingProxyType(
    {
        "STATE_UNSPECIFIED": None,
        "CREATING": JobEvent.SUBMITTED,
        "ACCEPTED": JobEvent.SUBMITTED,
        "WAITING_FOR_RESOURCES": JobEvent.SUBMITTED,
        "PROVISIONING": JobEvent.SUBMITTED,
        "ACTIVE": JobEvent.STARTED,
        "FAILED": JobEvent.FAILED,
        "SUSPENDING": JobEvent.PREEMPTED,
        "SUSPENDED": JobEvent.PREEMPTED,
        "DELETING": None,  # hosts go on for a while; it is over when they are gone
    }
)

DELETING: Final = "DELETING"
"""The state of a request that somebody has deleted, until its TPU is gone."""

HOLDS_NOTHING: Final = frozenset({"FAILED", "SUSPENDED", DELETING})
"""States in which no TPU is held, or soon none."""

WAITS: Final = "WAITING_FOR_RESOURCES"
"""The state of a request for which Google has no TPUs now."""

_LACK: Final = re.compile(
    r"insufficient|stockout|no more capacity|not enough|quota|exhausted|valid.?until|expired",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpuRow:
    """One queued resource as Google describes it.

    Attributes:
        key: Ours; None where somebody else made it.
        initiator: Who suspended it: `USER` or `SERVICE`.
        error: Google's words for why it failed.
    """

    name: str
    key: str | None
    state: str
    accelerator_type: str
    created_at: datetime
    initiator: str = ""
    error: str = ""

    @property
    def holds_tpus(self) -> bool:
        """Whether it holds TPUs, or waits for them, whether its job has ended or not."""
        return self.state not in HOLDS_NOTHING


def tpu_row(answer: Mapping[str, Any]) -> TpuRow:
    """Return what a queued resource's JSON says.

    Raises:
        ValueError, LookupError, TypeError: It is none.
    """
    state = _fields(answer.get("state"))
    error = _fields(_fields(state.get("failedData")).get("error"))
    (spec,) = answer["tpu"]["nodeSpec"]
    node = _fields(spec["node"])
    return TpuRow(
        name=str(answer["name"]).rpartition("/")[2],
        key=_fields(node.get("metadata")).get("spillway-key"),
        state=str(state.get("state", "STATE_UNSPECIFIED")),
        accelerator_type=str(node["acceleratorType"]),
        created_at=datetime.fromisoformat(str(answer["createTime"])).astimezone(UTC),
        initiator=str(state.get("stateInitiator", "")),
        error=str(error.get("message", "")),
    )


def exit_codes(answer: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the exit codes that hosts have left in their guest attributes."""
    items: list[Mapping[str, Any]] = [
        item
        for host in answer.get("guestAttributes", [])
        for item in _fields(host.get("queryValue")).get("items", [])
    ]
    return tuple(
        int(item["value"])
        for item in items
        if item["namespace"] == NAMESPACE and item["key"] == "exit"
    )


def is_over(codes: Sequence[int], hosts: int) -> bool:
    """Return whether a job has ended by what its hosts have left: one code that is not 0 ends it, as all of them do."""
    return any(codes) or len(codes) >= hosts


def observation(
    row: TpuRow,
    now: datetime,
    *,
    codes: Sequence[int],
    hosts: int,
    start_within: timedelta | None,
) -> Observation:
    """Return what is known of the job means for its lease.

    Args:
        row: The queued resource.
        now: When it was asked.
        codes: Exit codes that hosts have left, while it is active.
        hosts: How many hosts there are.
        start_within: How long it may wait for TPUs.
    """
    event = EVENTS.get(row.state)
    said = f"Cloud TPU says {row.state} of {row.name}"
    match event:
        case JobEvent.STARTED:
            return _running(now, said, codes, hosts)
        case JobEvent.SUBMITTED if start_within is not None and now - row.created_at > start_within:
            event, said = JobEvent.PREEMPTED, f"{said}: it has not started within {start_within}"
        case JobEvent.PREEMPTED if row.initiator == "USER":
            event, said = JobEvent.CANCELLED, f"{said}: somebody deleted its TPU"
        case JobEvent.FAILED:
            event = JobEvent.PREEMPTED if _LACK.search(row.error) else JobEvent.FAILED
            said = f"{said}: {row.error or 'no reason given'}"
        case _:
            pass
    return Observation(event=event, seen_at=now, detail=said)


def _running(now: datetime, said: str, codes: Sequence[int], hosts: int) -> Observation:
    """Tell by exit codes: one that is not 0 ends the job, of which the other hosts' ends are consequences."""
    if not is_over(codes, hosts):
        return Observation(event=JobEvent.STARTED, seen_at=now, detail=said)
    code = next((code for code in codes if code), 0)
    ends = {0: JobEvent.SUCCEEDED, PREEMPTED: JobEvent.PREEMPTED}
    said = f"{said}; the job ended with {containers.said(code)}"
    return Observation(
        event=ends.get(code, JobEvent.FAILED), seen_at=now, exit_code=code, detail=said
    )


def _fields(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}
