"""What is sent to SageMaker: one request a job. All pure."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.aws import naming
from spillway.errors import RejectedError
from spillway.model import Market
from spillway.model.codec import encode_json
from spillway.runtime.sagemaker import PART

if TYPE_CHECKING:
    from spillway.backends.aws_sagemaker.options import SageMakerOptions
    from spillway.model import Submission

NAME: Final = "aws_sagemaker"

KEY: Final = "spillway_key"
"""Hyperparameter with the key, coded as in tags: `DescribeTrainingJob` shows those, and no tags."""

PART_LENGTH: Final = 2500
MAX_PARTS: Final = 98
"""Source: Amazon SageMaker, `CreateTrainingJob`, `HyperParameters`, docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html."""

SPOT_WAIT: Final = timedelta(hours=1)
"""How long a job may wait for spot instances where `start_within` does not say."""


def request(submission: Submission, options: SageMakerOptions) -> dict[str, Any]:
    """Return the request that starts the job; it holds no secret.

    Raises:
        RejectedError: The submission is too large to send, or there is nowhere to put its output.
    """
    wanted: dict[str, Any] = {
        "TrainingJobName": naming.job_name(submission.pool, submission.key),
        "RoleArn": options.role,
        "AlgorithmSpecification": {
            "TrainingImage": options.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": [options.python, "-m", "spillway.runtime.sagemaker"],
        },
        "HyperParameters": _hyperparameters(submission),
        "OutputDataConfig": {"S3OutputPath": options.output or _output(submission)},
        "ResourceConfig": _machines(submission, options),
        "StoppingCondition": _stopping(submission, options),
        "EnableManagedSpotTraining": submission.market is Market.SPOT,
        "Environment": {"PYTHONUNBUFFERED": "1", **options.environment},
        "Tags": [
            {"Key": name, "Value": value}
            for name, value in naming.tags(submission.pool, submission.key, options.tags).items()
        ],
    }
    if submission.store.startswith("s3://"):
        wanted["CheckpointConfig"] = {"S3Uri": checkpoints(submission)}
    if options.subnets:
        wanted["VpcConfig"] = {
            "Subnets": list(options.subnets),
            "SecurityGroupIds": list(options.security_groups),
        }
    return wanted


def checkpoints(submission: Submission) -> str:
    """Return where SageMaker keeps what jobs of the task write into `/opt/ml/checkpoints`.

    It is in our store, beside our own checkpoints: those are committed by the runtime, and SageMaker, which copies the
    whole folder into every job that starts, is to leave them alone.
    """
    return f"{_folder(submission.store)}/sagemaker/checkpoints/{submission.prefix}"


def _output(submission: Submission) -> str:
    if not submission.store.startswith("s3://"):
        raise RejectedError(
            f"SageMaker needs a folder in S3 for output, and the store is {submission.store}; set the pool's option output",
            backend=NAME,
            key=submission.key,
        )
    return f"{_folder(submission.store)}/sagemaker/output"


def _folder(store: str) -> str:
    """Return where in S3 the store is: how it is asked, which its URL may say as well, is not SageMaker's."""
    return store.partition("?")[0].rstrip("/")


def _hyperparameters(submission: Submission) -> dict[str, str]:
    text = encode_json(submission).decode()
    parts = [text[start : start + PART_LENGTH] for start in range(0, len(text), PART_LENGTH)]
    if len(parts) > MAX_PARTS:
        raise RejectedError(
            f"the arguments of {submission.key} are too large for SageMaker ({len(text)} characters,"
            f" {MAX_PARTS * PART_LENGTH} are allowed); write them to a file and pass where it is",
            backend=NAME,
            key=submission.key,
        )
    numbered = {f"{PART}{number:03d}": part for number, part in enumerate(parts)}
    return {KEY: naming.encode(submission.key), **numbered}


def _machines(submission: Submission, options: SageMakerOptions) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "InstanceType": options.instance_type,
        "InstanceCount": submission.nodes,
        "VolumeSizeInGB": options.volume_gib,
    }
    if options.training_plan is not None:
        wanted["TrainingPlanArn"] = options.training_plan
    return wanted


def _stopping(submission: Submission, options: SageMakerOptions) -> dict[str, int]:
    runs = options.time_limit
    wanted = {"MaxRuntimeInSeconds": math.ceil(runs.total_seconds())}
    if submission.market is Market.SPOT:
        waits = runs + (options.start_within or SPOT_WAIT)
        wanted["MaxWaitTimeInSeconds"] = math.ceil(waits.total_seconds())
    return wanted
