"""Calls to SageMaker about the training jobs of one pool, with their pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.aws.failures import code_of
from spillway.backends.aws_sagemaker import parse
from spillway.errors import BackendError, RejectedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.backends.aws.session import Aws

LISTED_AT_ONCE: Final = 100
_UNKNOWN: Final = ("not found", "does not exist")
_OVER: Final = ("in status", "is in state", "not in progress", "cannot be stopped")


class Training:
    """The training jobs whose names begin as the pool's do."""

    def __init__(self, aws: Aws, prefix: str) -> None:
        self._aws = aws
        self._prefix = prefix

    def create(self, request: Mapping[str, Any]) -> None:
        """Start the job; a second one of its name is not made, and is no error."""
        try:
            self._aws.call("sagemaker", "CreateTrainingJob", **request)
        except BackendError as error:
            if code_of(error.__cause__) != "ResourceInUse":
                raise

    def describe(self, name: str) -> Mapping[str, Any] | None:
        """Return what SageMaker says of the job; None for one that it does not know."""
        try:
            return self._aws.call("sagemaker", "DescribeTrainingJob", TrainingJobName=name)
        except RejectedError as error:
            if _is_said(error, _UNKNOWN):
                return None
            raise

    def stop(self, name: str) -> None:
        """Stop the job; no error where it has ended, or never was."""
        try:
            self._aws.call("sagemaker", "StopTrainingJob", TrainingJobName=name)
        except RejectedError as error:
            if not _is_said(error, _UNKNOWN + _OVER):
                raise

    def running(self) -> dict[str, Mapping[str, Any]]:
        """Return the jobs that run or wait, and were not asked to stop, by name."""
        found: dict[str, Mapping[str, Any]] = {}
        more: dict[str, str] = {}
        while True:
            answer = self._aws.call(
                "sagemaker",
                "ListTrainingJobs",
                NameContains=self._prefix,
                StatusEquals="InProgress",
                MaxResults=LISTED_AT_ONCE,
                **more,
            )
            page = cast("list[Mapping[str, Any]]", answer.get("TrainingJobSummaries", []))
            found |= {str(one["TrainingJobName"]): one for one in page}
            if not answer.get("NextToken"):
                return {name: one for name, one in found.items() if name.startswith(self._prefix)}
            more = {"NextToken": str(answer["NextToken"])}

    def log_stream(self, group: str, name: str) -> str | None:
        """Return where the output of the job's first instance is; None while there is none."""
        try:
            answer = self._aws.call(
                "logs",
                "DescribeLogStreams",
                logGroupName=group,
                logStreamNamePrefix=f"{name}/algo-1-",
            )
        except RejectedError as error:
            if code_of(error.__cause__) == "ResourceNotFoundException":
                return None
            raise
        streams = [str(one["logStreamName"]) for one in answer.get("logStreams", [])]
        return min(streams, default=None)

    def is_over(self, name: str) -> bool:
        """Return whether the job holds nothing any more."""
        return not parse.is_live(self.describe(name))


def _is_said(error: RejectedError, words: tuple[str, ...]) -> bool:
    code = code_of(error.__cause__)
    return code == "ResourceNotFound" or (
        code == "ValidationException" and any(word in str(error).lower() for word in words)
    )
