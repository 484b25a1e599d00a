"""What Slurm's answers mean: jobs from `squeue`, `sacct` and the REST API, and what of them a lease sees. All pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.slurm.render import NO_FOLDER
from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta

# Source: SchedMD, squeue(1), section JOB STATE CODES, https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES
# A state that is not here is reported as unknown, not guessed.
EVENTS: Final[Mapping[str, JobEvent | None]] = MappingProxyType(
    {
        "PENDING": JobEvent.SUBMITTED,
        "CONFIGURING": JobEvent.SUBMITTED,
        "RUNNING": JobEvent.STARTED,
        "SUSPENDED": JobEvent.STARTED,
        "STOPPED": JobEvent.STARTED,
        "RESIZING": JobEvent.STARTED,
        "SIGNALING": JobEvent.STARTED,
        "STAGE_OUT": JobEvent.STARTED,
        "COMPLETING": None,  # how it ends is hidden until it has
        "COMPLETED": JobEvent.SUCCEEDED,
        "FAILED": JobEvent.FAILED,
        "OUT_OF_MEMORY": JobEvent.FAILED,
        "DEADLINE": JobEvent.FAILED,
        "PREEMPTED": JobEvent.PREEMPTED,
        "TIMEOUT": JobEvent.PREEMPTED,  # the pool gives no more than that at a time; the task goes on in the next lease
        "CANCELLED": JobEvent.CANCELLED,
        "NODE_FAIL": JobEvent.VANISHED,  # its processes may run on, unseen
        "BOOT_FAIL": JobEvent.VANISHED,
        "POWER_UP_NODE": JobEvent.SUBMITTED,
        "LAUNCH_FAILED": None,
        "RECONFIG_FAIL": None,
        "REQUEUED": None,
        "REQUEUE_FED": None,
        "REQUEUE_HOLD": None,
        "RESV_DEL_HOLD": None,
        "SPECIAL_EXIT": None,
        "REVOKED": None,
    }
)

ENDS: Final = frozenset(
    {
        "COMPLETED",
        "FAILED",
        "OUT_OF_MEMORY",
        "DEADLINE",
        "PREEMPTED",
        "TIMEOUT",
        "CANCELLED",
        "NODE_FAIL",
        "BOOT_FAIL",
        "REVOKED",
    }
)
"""States in which a job holds nothing any more."""

KILLED: Final = 137
"""How a shell says that what it ran was ended by SIGKILL."""

CANNOT_OPEN_OUTPUT: Final = -53
"""How Slurm says that a job's output could not be opened, in the place of a signal."""

_REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "OUT_OF_MEMORY": "it used more memory than was asked for; raise memory_gib of its resources",
        "TIMEOUT": "it ran for as long as time_limit or the partition allows",
        "NODE_FAIL": "a node of it does not answer",
    }
)

QUEUE_FORMAT: Final = (
    "JobID:20|,Name:100|,State:20|,exit_code:12|,Reason:60|,NumNodes:10|,SubmitTime:20|"
)
"""For `squeue -O`: fields of a fixed width, none of which can have a bar in it."""
COMMENT_FORMAT: Final = "%A|%k"
"""For `squeue -o`, which does not cut its last field."""
ACCOUNT_FORMAT: Final = "JobIDRaw,JobName,State,ExitCode,Reason,NNodes,Submit"
"""For `sacct -P -o`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """One job as Slurm describes it.

    Attributes:
        exit_code: Negative for the signal that ended it; None while it has not ended, or where that is not known.
        nodes: How many it has, or asks for.
    """

    job_id: int
    name: str
    state: str
    exit_code: int | None = None
    reason: str = ""
    nodes: int = 1
    submitted_at: datetime | None = None

    @property
    def is_live(self) -> bool:
        """Whether it holds capacity, or waits for it."""
        return self.state not in ENDS


def observation(row: JobRow, now: datetime, *, start_within: timedelta | None) -> Observation:
    """Return what the job's description means for its lease."""
    event = EVENTS.get(row.state)
    said = f"Slurm says {row.state} of job {row.job_id}"
    said += f" ({row.reason})" if row.reason not in {"", "None"} else ""
    if event is JobEvent.FAILED and row.exit_code == PREEMPTED:
        return _seen(
            JobEvent.PREEMPTED, row, now, f"{said}: it stopped because its capacity is taken back"
        )
    if event is JobEvent.FAILED and row.exit_code is None:
        return _seen(
            JobEvent.VANISHED, row, now, f"{said}, and not whether its capacity was taken back"
        )
    if row.exit_code in {NO_FOLDER, CANNOT_OPEN_OUTPUT}:
        said += ": it cannot write to the option folder, which must exist on a file system that all nodes share"
    if (
        event is JobEvent.FAILED and row.exit_code == KILLED
    ):  # of a step that it kills for memory, Slurm tells `srun` only
        said += (
            ": it was killed; if its output says Out Of Memory, raise memory_gib of its resources"
        )
    if event is JobEvent.SUBMITTED and _waits_too_long(row, now, start_within):
        return _seen(
            JobEvent.PREEMPTED, row, now, f"{said}: it has not started within {start_within}"
        )
    remedy = _REMEDIES.get(row.state)
    return _seen(event, row, now, f"{said}: {remedy}" if remedy else said)


def queue_rows(text: str) -> list[JobRow]:
    """Return the jobs that `squeue -O` printed in `QUEUE_FORMAT`."""
    return [_queue_row(_fields(line)) for line in text.splitlines() if line.strip()]


def queue_comments(text: str) -> dict[int, str]:
    """Return the comments that `squeue -o` printed in `COMMENT_FORMAT`, by job."""
    split = (line.partition("|") for line in text.splitlines() if line.strip())
    return {int(job_id): comment for job_id, _, comment in split}


def account_rows(text: str) -> list[JobRow]:
    """Return the jobs that `sacct -P` printed in `ACCOUNT_FORMAT`."""
    return [_account_row(_fields(line)) for line in text.splitlines() if line.strip()]


def rest_rows(answer: Mapping[str, Any]) -> list[JobRow]:
    """Return the jobs of an answer to `GET /slurm/.../jobs`."""
    return [_rest_row(job) for job in items_of(answer.get("jobs"))]


def rest_comments(answer: Mapping[str, Any]) -> dict[int, str]:
    """Return the comments of the jobs of an answer to `GET /slurm/.../jobs`, by job."""
    return {int(job["job_id"]): _comment(job) for job in items_of(answer.get("jobs"))}


def rest_account_rows(answer: Mapping[str, Any]) -> list[JobRow]:
    """Return the jobs of an answer to `GET /slurmdb/.../jobs`."""
    return [_rest_account_row(job) for job in items_of(answer.get("jobs"))]


def number(value: object) -> int:
    """Return a number of the REST API: itself, or from v0.0.39 on in `{"set": true, "number": 1}`; 0 for none."""
    holder = fields_of(value)
    if holder:
        return number(holder.get("number")) if holder.get("set", True) else 0
    return int(value) if isinstance(value, int | float | str) and value != "" else 0


def words(value: object) -> list[str]:
    """Return a state of the REST API in capitals: one text, or from v0.0.39 on a list of them."""
    if isinstance(value, str):
        return [value.upper()]
    return [str(word).upper() for word in items_of(value)]


def fields_of(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def items_of(value: object) -> list[Any]:
    """Return a JSON list; an empty one for anything else."""
    return list(cast("Sequence[Any]", value)) if isinstance(value, list) else []


def exit_code(wait_status: int) -> int:
    """Return the exit code in what `wait(2)` gave, negative for a signal.

    Slurm's own codes, of jobs whose output it could not open, stand in the place of a signal too.
    """
    signal = wait_status & 0x7F
    return -signal if signal else wait_status >> 8 & 0xFF


def _seen(event: JobEvent | None, row: JobRow, now: datetime, detail: str) -> Observation:
    code = row.exit_code if not row.is_live else None
    return Observation(event=event, seen_at=now, exit_code=code, detail=detail)


def _waits_too_long(row: JobRow, now: datetime, start_within: timedelta | None) -> bool:
    if start_within is None or row.submitted_at is None:
        return False
    return now - row.submitted_at > start_within


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.split("|")]


def _queue_row(fields: list[str]) -> JobRow:
    job_id, name, state, status, reason, nodes, submitted = fields[:7]
    return JobRow(
        job_id=int(job_id),
        name=name,
        state=state,
        exit_code=_printed_exit_code(status) if state in ENDS else None,
        reason=reason,
        nodes=_count(nodes),
        submitted_at=_time(submitted),
    )


def _account_row(fields: list[str]) -> JobRow:
    job_id, name, state, code, reason, nodes, submitted = fields[:7]
    state = state.split(" ")[0].rstrip("+")  # "CANCELLED by 1000"
    return JobRow(
        job_id=int(job_id),
        name=name,
        state=state,
        exit_code=_printed_exit_code(code) if state in ENDS else None,
        reason=reason,
        nodes=_count(nodes),
        submitted_at=_time(submitted),
    )


def _printed_exit_code(text: str) -> int:
    """Return the exit code in `3:0`, code and signal; old `squeue` prints what `wait(2)` gave instead."""
    code, colon, signal = text.partition(":")
    if not colon:
        return exit_code(int(text or 0))
    return -int(signal) or int(code)


def _rest_row(job: Mapping[str, Any]) -> JobRow:
    state = _state(words(job.get("job_state")))
    submitted = number(job.get("submit_time"))
    return JobRow(
        job_id=int(job["job_id"]),
        name=str(job.get("name") or ""),
        state=state,
        exit_code=_rest_exit_code(job.get("exit_code")) if state in ENDS else None,
        reason=str(job.get("state_reason") or ""),
        nodes=max(number(job.get("node_count")), 1),
        submitted_at=datetime.fromtimestamp(submitted, UTC) if submitted else None,
    )


def _rest_account_row(job: Mapping[str, Any]) -> JobRow:
    said = fields_of(job.get("state"))
    state = _state(words(said.get("current")))
    code = _rest_exit_code(job.get("exit_code")) if state in ENDS else None
    return JobRow(
        job_id=int(job["job_id"]),
        name=str(job.get("name") or ""),
        state=state,
        # slurmrestd 22.05 says 0 of every job, whatever accounting has.
        exit_code=None if state == "FAILED" and code == 0 else code,
        reason=str(said.get("reason") or ""),
        nodes=max(number(job.get("allocation_nodes")), 1),
    )


def _rest_exit_code(value: object) -> int:
    code = fields_of(value)
    if not code:
        return exit_code(number(value))
    signal = fields_of(code.get("signal"))
    return -number(signal.get("signal_id", signal.get("id"))) or number(code.get("return_code"))


def _state(said: list[str]) -> str:
    """Return the one state of those that newer versions list: while flags last, the flag says more."""
    flags = [word for word in said if word in {"COMPLETING", "CONFIGURING", "REQUEUED"}]
    return (flags or said or [""])[0]


def _comment(job: Mapping[str, Any]) -> str:
    said: object = job.get("comment") or ""
    return str(said)


def _count(text: str) -> int:
    """Return a number of nodes, which Slurm writes as a range while it is not settled."""
    first = text.partition("-")[0]
    return max(int(first), 1) if first.isdigit() else 1


def _time(text: str) -> datetime | None:
    """Return a time that a command printed with `TZ=UTC`."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # "Unknown", "N/A"
        return None


def printed_end(text: str) -> datetime:
    """Return when the reservation ends that `scontrol --oneliner show reservation` printed with `TZ=UTC`.

    Raises:
        ValueError: It printed none.
    """
    fields = dict(part.split("=", 1) for part in text.split() if "=" in part)
    return datetime.fromisoformat(fields.get("EndTime", "")).replace(tzinfo=UTC)


def rest_end(answer: Mapping[str, Any]) -> datetime:
    """Return when the reservation of an answer to `GET /slurm/.../reservation/...` ends.

    Raises:
        ValueError: There is none.
    """
    (reservation,) = items_of(answer.get("reservations"))
    return datetime.fromtimestamp(number(reservation["end_time"]), UTC)


def earliest_by_name(rows: Iterable[JobRow]) -> dict[str, JobRow]:
    """Return the first job of each name: the one that runs, as later ones wait for it."""
    return {row.name: row for row in sorted(rows, key=lambda row: -row.job_id)}
