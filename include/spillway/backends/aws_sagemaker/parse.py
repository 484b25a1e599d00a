"""What SageMaker's answers mean for a lease. All pure."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.aws import naming
from spillway.backends.aws_sagemaker.render import KEY
from spillway.model import JobEvent, Observation
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

# Source: Amazon SageMaker, `DescribeTrainingJob`, `SecondaryStatus`,
# docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
# A status that is not here is reported as unknown, not guessed.
EVENTS: Final[Mapping[str, JobEvent | None]] = MappingProxyType(
    {
        "Starting": JobEvent.SUBMITTED,
        "Pending": JobEvent.SUBMITTED,
        "LaunchingMLInstances": JobEvent.SUBMITTED,
        "PreparingTrainingStack": JobEvent.SUBMITTED,
        "Downloading": JobEvent.SUBMITTED,
        "DownloadingTrainingImage": JobEvent.SUBMITTED,
        "Training": JobEvent.STARTED,
        "Updating": JobEvent.STARTED,
        "Uploading": JobEvent.STARTED,
        # SageMaker would start it again, when it finds instances; the task goes on elsewhere now, and the job is stopped.
        "Interrupted": JobEvent.PREEMPTED,
        "Restarting": JobEvent.PREEMPTED,
        "MaxRuntimeExceeded": JobEvent.PREEMPTED,  # what one lease has; the task goes on in the next
        "MaxWaitTimeExceeded": JobEvent.PREEMPTED,
        "Stopping": None,  # how it ends is hidden until it has
        "Stopped": JobEvent.CANCELLED,
        "Completed": JobEvent.SUCCEEDED,
        "Failed": JobEvent.FAILED,  # `ENDS` tells why
    }
)
LIVE: Final = frozenset({"InProgress", "Stopping"})

# What the reason of a failure begins with, the first that fits.
# Source: Amazon SageMaker, "Common errors", docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html; and the SDK, which looks
# for the same words, github.com/aws/sagemaker-python-sdk, `Session._check_job_status`.
ENDS: Final[tuple[tuple[str, JobEvent, str], ...]] = (
    (
        r"CapacityError",
        JobEvent.PREEMPTED,
        "there are no such instances now; the task goes elsewhere",
    ),
    (r"InternalServerError", JobEvent.VANISHED, "SageMaker failed, not the task"),
    (
        r"ClientError.*(image|repository)",
        JobEvent.FAILED,
        "correct the option image, and let the role pull it",
    ),
    (
        r"exit code:? '?137\b",
        JobEvent.FAILED,
        "it was killed, most often for too little memory; raise memory_gib, or take a pool with a larger instance_type",
    ),
)
_EXIT_CODE: Final = re.compile(r"exit code:? '?(\d+)", re.IGNORECASE)


def observation(
    job: Mapping[str, Any] | None, now: datetime, *, start_within: timedelta | None = None
) -> Observation:
    """Return what the job's description, or its entry in a list, means for its lease; None is a job that is not known."""
    if job is None:
        return Observation(event=JobEvent.VANISHED, seen_at=now, detail="not known to SageMaker")
    status = str(job.get("SecondaryStatus"))
    reason = " ".join(str(job.get("FailureReason", "")).split())[:500]
    said = f"SageMaker says {status} of job {job.get('TrainingJobName')}"
    said += f" ({reason})" if reason else ""
    event = EVENTS.get(status)
    if event is JobEvent.FAILED:
        return _failed(reason, said, now)
    if event is JobEvent.SUBMITTED and start_within is not None:
        created = cast("datetime", job.get("CreationTime", now))
        if now - created > start_within:
            said += f": it has not started within {start_within}"
            return Observation(event=JobEvent.PREEMPTED, seen_at=now, detail=said)
    code = 0 if event is JobEvent.SUCCEEDED else None
    return Observation(event=event, seen_at=now, exit_code=code, detail=said)


def key_of(description: Mapping[str, Any]) -> str | None:
    """Return the key of a described job, or None where it is not ours."""
    found = cast("Mapping[str, str]", description.get("HyperParameters", {})).get(KEY)
    return None if found is None else naming.decode(found)


def nodes_of(description: Mapping[str, Any]) -> int:
    """Return how many instances a described job has, or asks for."""
    machines = cast("Mapping[str, Any]", description.get("ResourceConfig", {}))
    return int(machines.get("InstanceCount", 1))


def is_live(description: Mapping[str, Any] | None) -> bool:
    """Return whether the job holds instances, or waits for them."""
    return description is not None and description.get("TrainingJobStatus") in LIVE


def _failed(reason: str, said: str, now: datetime) -> Observation:
    found = _EXIT_CODE.search(reason)
    exit_code = None if found is None else int(found[1])
    event, why = _why(reason, exit_code)
    detail = f"{said}: {why}" if why else said
    return Observation(event=event, seen_at=now, exit_code=exit_code, detail=detail)


def _why(reason: str, exit_code: int | None) -> tuple[JobEvent, str]:
    if exit_code == PREEMPTED:
        return JobEvent.PREEMPTED, "it stopped because its capacity is taken back"
    for pattern, event, why in ENDS:
        if re.search(pattern, reason, re.IGNORECASE):
            return event, why
    return JobEvent.FAILED, ""
