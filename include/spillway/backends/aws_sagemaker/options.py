"""What a pool of SageMaker training may say under `options`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from spillway.backends.aws.options import Arn, AwsOptions, Minutes, Word, read
from spillway.errors import SpecError
from spillway.model import Market

if TYPE_CHECKING:
    from spillway.model import Pool

MAX_VALUE = 512
"""Of an environment variable. Source: Amazon SageMaker, `CreateTrainingJob`, `TrainingEnvironmentValue`."""


def _instance_type(text: str) -> str:
    if not text.startswith("ml."):
        raise ValueError("must be one of SageMaker's, such as ml.p5.48xlarge")
    return text


def _folder(text: str) -> str:
    if not text.startswith("s3://"):
        raise ValueError("must be a folder in S3, such as s3://bucket/output")
    return text.rstrip("/")


class SageMakerOptions(AwsOptions):
    """Options of a pool of SageMaker training.

    Attributes:
        instance_type: What its jobs run on.
        role: Role that SageMaker takes for the job: the checkpoint store, the image, the log.
        training_plan: Training plan that its capacity is of, for a reserved pool.
        volume_gib: Size of the disk of each instance; those with disks of their own ignore it.
        output: Where SageMaker puts what jobs leave in `/opt/ml/model`; None for a folder in the checkpoint store.
        subnets: Of the VPC that jobs run in, with `security_groups`.
        time_limit: Longest a job may run.
    """

    instance_type: Annotated[str, AfterValidator(_instance_type)]
    role: Arn
    training_plan: Arn | None = None
    volume_gib: Annotated[int, Field(ge=1)] = 100
    output: Annotated[str, AfterValidator(_folder)] | None = None
    subnets: tuple[Word, ...] = ()
    security_groups: tuple[Word, ...] = ()
    time_limit: Minutes = timedelta(days=1)  # pyright: ignore[reportIncompatibleVariableOverride]  # SageMaker has no job without one


def read_options(pool: Pool) -> SageMakerOptions:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    options = read(SageMakerOptions, pool)
    if bool(options.subnets) != bool(options.security_groups):
        raise SpecError(
            f"pool {pool.name!r} needs the options subnets and security_groups, or neither"
        )
    if options.training_plan is not None and pool.market is Market.SPOT:
        raise SpecError(
            f"pool {pool.name!r} has the option training_plan, which is no spot capacity; write `market: reserved`"
        )
    long = sorted(name for name, value in options.environment.items() if len(value) > MAX_VALUE)
    if long:
        raise SpecError(
            f"pool {pool.name!r} has the option environment with more than {MAX_VALUE} characters for {', '.join(long)}"
        )
    return options
