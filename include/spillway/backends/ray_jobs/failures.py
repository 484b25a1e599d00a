"""What Ray says of jobs that failed, and of requests: whose doing it was, and what to do."""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.errors import AccessError, BackendError, RejectedError, TransientError
from spillway.model import JobEvent

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from datetime import timedelta

NAME: Final = "ray"
LATER: Final = "the same request may succeed later"

ENTRY_POINT_FAILED: Final = "JOB_ENTRYPOINT_COMMAND_ERROR"
"""The type of error of a job that ended by itself, with an exit code."""

_NO_ROOM: Final = "no node had room for it in time: the task goes on elsewhere"
_LOST: Final = (
    "its node is gone, or the process of Ray that watched it: the task goes on from its checkpoint"
)
_ENVIRONMENT: Final = "correct the options working_dir, pip or image_uri; the cluster's nodes must be able to fetch them"

# Source: Ray 2.60, class JobErrorType, docs.ray.io/en/latest/cluster/running-applications/job-submission/doc/
# ray.job_submission.JobErrorType.html. A type that is not here is read as a failure.
ERROR_TYPES: Final[Mapping[str, tuple[JobEvent, str]]] = MappingProxyType(
    {
        ENTRY_POINT_FAILED: (JobEvent.FAILED, ""),
        "JOB_ENTRYPOINT_COMMAND_START_ERROR": (
            JobEvent.FAILED,
            "the option python must name an interpreter of the cluster's nodes",
        ),
        "RUNTIME_ENV_SETUP_FAILURE": (JobEvent.FAILED, _ENVIRONMENT),
        "JOB_SUPERVISOR_ACTOR_START_TIMEOUT": (JobEvent.PREEMPTED, _NO_ROOM),
        "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE": (JobEvent.PREEMPTED, _NO_ROOM),
        "JOB_SUPERVISOR_ACTOR_START_FAILURE": (JobEvent.FAILED, ""),
        "JOB_SUPERVISOR_ACTOR_DIED": (JobEvent.VANISHED, _LOST),
        "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE": (JobEvent.VANISHED, _LOST),
    }
)

# What messages begin with when a node was lost and the type does not say so: recorded from Ray 2.60, or of versions
# before the types.
LOSSES: Final = (
    "Job supervisor actor died:",
    "Unexpected error occurred: failed to get job supervisor",
    "Unexpected error occurred: The actor died",
    "Unexpected error occurred: The actor is unavailable",
    "Unexpected error occurred: The actor is temporarily unavailable",
)

# Where the machinery itself could not go on with setting up, though nothing is wrong with what was asked.
_NODE_DIED: Final = ("The actor died because its node has died", "node has died", "node died")

# What Ray's memory monitor says of workers that it killed, in messages of its own and in the tracebacks of those who waited for
# them: recorded from Ray 2.60. It looks at Ray's workers only, and one of them is the process that watches a job.
_MEMORY_MONITOR: Final = (
    "killed due to the node running low on memory",
    "how to address the out of memory issue",
)
_WATCHER_KILLED: Final = (
    "its node ran low on memory, and Ray killed the process that watched it: the task goes on from its checkpoint; raise "
    "memory_gib of what runs there, or the nodes' memory"
)
_WORKER_KILLED: Final = (
    "its node ran low on memory, and Ray killed workers of it: have its tasks and actors ask for `memory`, or fewer of them run "
    "at once"
)
_SIGKILL: Final = frozenset({-9, 137})
"""Exit codes after SIGKILL, by what started the entry point and by a shell or container; stopped jobs are not failed ones."""

_KILLED: Final = "SIGKILL: most likely it ran out of memory; raise memory_gib of its resources"


def meaning(
    error_type: str | None, message: str, exit_code: int | None = None
) -> tuple[JobEvent, str]:
    """Return what a job's failure means for its lease, and a remedy: a loss is told from a failure."""
    if any(words in message for words in _MEMORY_MONITOR):
        if exit_code is None:
            return JobEvent.VANISHED, _WATCHER_KILLED
        return JobEvent.FAILED, _WORKER_KILLED
    if exit_code in _SIGKILL:
        return JobEvent.FAILED, _KILLED
    if message.startswith(LOSSES):
        return JobEvent.VANISHED, _LOST
    event, remedy = ERROR_TYPES.get(error_type or "", (JobEvent.FAILED, ""))
    if error_type != ENTRY_POINT_FAILED and any(words in message for words in _NODE_DIED):
        return JobEvent.VANISHED, _LOST
    return event, remedy


def by_status(status: int, text: str, where: str, *, retry_after: timedelta | None) -> BackendError:
    """Return the exception for an answer that is none of those asked for."""
    said = last_line(text)
    match status:
        case 401 | 403:
            return AccessError(
                f"Ray at {where} does not accept the token ({said}); set the connection's password to the cluster's, "
                "`ray get-auth-token` on its head shows it",
                backend=NAME,
            )
        case 404:
            return TransientError(
                f"what answers at {where} does not offer Ray's Jobs API ({said}); the connection's host and port are "
                "those of the dashboard, 8265 unless changed",
                backend=NAME,
            )
        case 400 | 413 | 422:
            return RejectedError(f"Ray refused the request: {status} {said}", backend=NAME)
        case _ if (
            "Request failed with status code 400" in text
        ):  # the head passes its agent's answer on as its own error
            return RejectedError(f"Ray refused the request: {said}", backend=NAME)
        case _:
            return TransientError(
                f"Ray at {where} answers {status}: {said}; {LATER}",
                backend=NAME,
                retry_after=retry_after,
            )


def last_line(text: str) -> str:
    """Return the last line that says something: errors arrive as whole tracebacks."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "nothing"


@contextmanager
def readable(where: str) -> Generator[None]:
    """Make of an answer that is not what was asked for a `TransientError`: it says nothing of any job."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TransientError(
            f"the answer of {where} cannot be read ({error!r}); is it Ray's dashboard that answers there?",
            backend=NAME,
        ) from error
