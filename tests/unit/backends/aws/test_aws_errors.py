"""Every way in which AWS and its client can say no."""

from __future__ import annotations

import inspect
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from spillway.backends.aws import failures
from spillway.errors import AccessError, BackendError, CapacityError, RejectedError, TransientError
from spillway.testing.aws_words import service

# Of the client's exceptions, those that mean a mistake in the request or in this program: refused for good.
MISTAKES = {
    "AliasConflictParameterError",
    "ApiVersionNotFoundError",
    "AwsChunkedWrapperError",
    "BaseEndpointResolverError",
    "BotoCoreError",
    "DataNotFoundError",
    "EndpointVariantError",
    "FlexibleChecksumError",
    "InvalidChecksumConfigError",
    "InvalidDNSNameError",
    "InvalidDefaultsMode",
    "InvalidEndpointConfigurationError",
    "InvalidEndpointDiscoveryConfigurationError",
    "InvalidExpressionError",
    "InvalidHostLabelError",
    "InvalidIMDSEndpointError",
    "InvalidIMDSEndpointModeError",
    "InvalidMaxRetryAttemptsError",
    "InvalidRegionError",
    "InvalidRetryConfigurationError",
    "InvalidRetryModeError",
    "InvalidS3AddressingStyleError",
    "InvalidS3UsEast1RegionalEndpointConfigError",
    "InvalidSTSRegionalEndpointsConfigError",
    "MD5UnavailableError",
    "MissingParametersError",
    "OperationNotPageableError",
    "PaginationError",
    "ParamValidationError",
    "RangeError",
    "ServiceNotInRegionError",
    "StubAssertionError",
    "StubResponseError",
    "UnStubbedResponseError",
    "UnknownClientMethodError",
    "UnknownEndpointError",
    "UnknownFIPSEndpointError",
    "UnknownKeyError",
    "UnknownParameterError",
    "UnknownRegionError",
    "UnknownServiceError",
    "UnknownServiceStyle",
    "UnknownSignatureVersionError",
    "UnseekableStreamError",
    "UnsupportedOutpostResourceError",
    "UnsupportedS3AccesspointConfigurationError",
    "UnsupportedS3ArnError",
    "UnsupportedS3ConfigurationError",
    "UnsupportedS3ControlArnError",
    "UnsupportedS3ControlConfigurationError",
    "UnsupportedServiceProtocolsError",
    "UnsupportedSignatureVersionError",
    "ValidationError",
    "WaiterConfigError",
    "WaiterError",
}

OPERATIONS = {
    "batch": [
        "DescribeJobDefinitions",
        "DescribeJobs",
        "ListJobs",
        "RegisterJobDefinition",
        "SubmitJob",
        "TerminateJob",
    ],
    "ec2": ["DescribeCapacityReservations", "DescribeSpotPriceHistory", "GetSpotPlacementScores"],
    "logs": ["DescribeLogStreams", "GetLogEvents"],
    "sagemaker": [
        "CreateTrainingJob",
        "DescribeTrainingJob",
        "DescribeTrainingPlan",
        "ListTrainingJobs",
        "StopTrainingJob",
    ],
}

SOURCE = Path(failures.__file__).parents[1]
PAGE = Path(__file__).parents[4] / "docs" / "backends" / "aws.md"


def answered(
    code: str, message: str = "as it is", status: int = 400, **headers: str
) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return ClientError(answer, "SubmitJob")


def explained(error: Exception) -> BackendError:
    return failures.explain(error, backend="aws_batch", permission="batch:SubmitJob")


def test_every_exception_of_the_client_is_sorted_on_purpose() -> None:
    found = {
        name: one
        for name, one in vars(exceptions).items()
        if inspect.isclass(one) and issubclass(one, exceptions.BotoCoreError)
    }
    by_default = {
        name
        for name, one in found.items()
        if next(base for base in one.__mro__ if base in failures.EXCEPTIONS)
        is exceptions.BotoCoreError
    }
    assert by_default <= MISTAKES, "sort these in failures.EXCEPTIONS, or list them as mistakes"


def test_every_error_that_the_services_declare_is_sorted() -> None:
    declared = {
        error.metadata.get("error", {}).get("code", error.name)
        for name, operations in OPERATIONS.items()
        for operation in operations
        for error in service(name).operation_model(operation).error_shapes
    }
    assert declared <= set(failures.CODES)


@pytest.mark.parametrize("code", sorted(failures.CODES))
def test_every_code_gives_its_kind_and_a_remedy(code: str) -> None:
    kind, _ = failures.CODES[code]
    error = explained(answered(code))
    assert type(error) is kind
    assert ";" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, RejectedError), (429, TransientError), (503, TransientError)]
)
def test_an_unknown_code_is_sorted_by_its_status(status: int, kind: type[Exception]) -> None:
    assert type(explained(answered("SomethingNew", status=status))) is kind


@pytest.mark.parametrize(
    ("message", "kind", "remedy"),
    [
        ("Job queue arn:aws:batch:eu:1:job-queue/x does not exist.", RejectedError, "option queue"),
        ("The job queue is DISABLED", CapacityError, "enabled"),
        ("Could not assume role arn:aws:iam::1:role/x", RejectedError, "correct the roles"),
        ("Instance type p9.huge is not supported", RejectedError, "correct the instance type"),
        ("Cannot find image 1.dkr.ecr.x/y:z", RejectedError, "option image"),
    ],
)
def test_a_refusal_names_what_to_correct(message: str, kind: type[Exception], remedy: str) -> None:
    error = explained(answered("ClientException", message))
    assert type(error) is kind
    assert remedy in str(error)


def test_the_permission_that_aws_names_counts_more_than_the_one_asked_for() -> None:
    message = (
        "User: x is not authorized to perform: iam:PassRole on resource: arn:aws:iam::1:role/y"
    )
    assert "the permission iam:PassRole is missing" in str(
        explained(answered("AccessDeniedException", message))
    )
    assert "the permission batch:SubmitJob is missing" in str(explained(answered("AccessDenied")))


def test_a_clock_that_is_wrong_is_told() -> None:
    error = explained(answered("RequestTimeTooSkewed", status=403))
    assert isinstance(error, AccessError)
    assert "clock" in str(error)


@pytest.mark.parametrize(
    "kind",
    [exceptions.ReadTimeoutError, exceptions.ConnectTimeoutError, exceptions.HTTPClientError],
)
def test_no_answer_in_time_is_no_throttling_and_may_be_asked_again(kind: Any) -> None:
    silent = kind(endpoint_url="https://batch.example", error="timed out")
    assert not failures.is_throttled(silent)
    assert failures.wait_of(silent) is None
    explained = failures.explain(silent, backend="aws_batch", permission="batch:SubmitJob")
    assert isinstance(explained, TransientError)


def test_what_aws_says_of_waiting_is_read() -> None:
    for code in ("SlowDown", "ServiceUnavailable"):
        told = explained(answered(code, **{"retry-after": "7"}))
        assert isinstance(told, TransientError)
        assert told.retry_after == timedelta(seconds=7)
    assert failures.wait_of(answered("SlowDown")) is None
    assert failures.wait_of(exceptions.NoCredentialsError()) is None


def test_the_operations_are_those_that_the_backends_call() -> None:
    text = "".join(
        path.read_text()
        for name in ("aws", "aws_batch", "aws_sagemaker")
        for path in (SOURCE / name).glob("*.py")
    )
    called = set(re.findall(r'\.call\(\s*"(\w+)",\s*"(\w+)"', text))
    assert called == {(name, one) for name, found in OPERATIONS.items() for one in found}
    assert text.count("aws.call(") == len(re.findall(r'aws\.call\(\s*"', text))


def test_the_policy_on_the_page_allows_every_call_and_is_json() -> None:
    policies = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    statements = [one for text in policies for one in json.loads(text)["Statement"]]
    actions = [one["Action"] for one in statements]
    allowed = {name for one in actions for name in ([one] if isinstance(one, str) else one)}
    assert {f"{name}:{one}" for name, found in OPERATIONS.items() for one in found} <= allowed
