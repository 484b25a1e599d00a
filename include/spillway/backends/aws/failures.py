"""What AWS and its client can say no with, sorted by what the caller can do."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions  # pyright: ignore[reportMissingTypeStubs]  # it ships without types

from spillway.backends.throttling import retry_after
from spillway.errors import AccessError, BackendError, CapacityError, RejectedError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

LATER: Final = "the same request may succeed later"
_CREDENTIALS: Final = "renew the credentials of the pool's connection"
_CLOCK: Final = "set this machine's clock, and look whether the credentials are right"
_ALLOW: Final = "allow it to the user or role of the pool's connection"
_QUOTA: Final = "ask AWS for a higher quota in Service Quotas, or lower the pool's slots"
_ELSEWHERE: Final = "another pool may do"
_OPTIONS: Final = "correct the pool's options"

THROTTLED: Final = frozenset(
    {
        "EC2ThrottledException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
"""Source: botocore, retries/standard.py, `ThrottledRetryableChecker`."""

# Sources: the pages "Common errors" of AWS Batch, Amazon SageMaker and CloudWatch Logs, docs.aws.amazon.com/batch/latest/APIReference/CommonErrors.html
# and its kin; Amazon EC2, "Error codes", docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html.
CODES: Final[Mapping[str, tuple[type[BackendError], str]]] = MappingProxyType(
    {
        **dict.fromkeys(sorted(THROTTLED), (TransientError, LATER)),
        "InternalError": (TransientError, LATER),
        "InternalFailure": (TransientError, LATER),
        "InternalServerException": (TransientError, LATER),
        "RequestTimeout": (TransientError, LATER),
        "ServerException": (TransientError, LATER),
        "ServiceUnavailable": (TransientError, LATER),
        "ServiceUnavailableException": (TransientError, LATER),
        "Unavailable": (TransientError, LATER),
        "AccessDenied": (AccessError, _ALLOW),
        "AccessDeniedException": (AccessError, _ALLOW),
        "NotAuthorized": (AccessError, _ALLOW),
        "UnauthorizedOperation": (AccessError, _ALLOW),
        "OptInRequired": (AccessError, "have the account subscribed to the service"),
        "AuthFailure": (AccessError, _CREDENTIALS),
        "ExpiredToken": (AccessError, _CREDENTIALS),
        "ExpiredTokenException": (AccessError, _CREDENTIALS),
        "IncompleteSignature": (AccessError, _CREDENTIALS),
        "InvalidClientTokenId": (AccessError, _CREDENTIALS),
        "MissingAuthenticationToken": (AccessError, _CREDENTIALS),
        "MissingAuthenticationTokenException": (AccessError, _CREDENTIALS),
        "UnrecognizedClientException": (AccessError, _CREDENTIALS),
        "InvalidSignatureException": (AccessError, _CLOCK),
        "RequestExpired": (AccessError, _CLOCK),
        "RequestTimeTooSkewed": (AccessError, _CLOCK),
        "SignatureDoesNotMatch": (AccessError, _CLOCK),
        "InstanceLimitExceeded": (AccessError, _QUOTA),
        "LimitExceededException": (AccessError, _QUOTA),
        "MaxConfigLimitExceeded": (AccessError, _QUOTA),
        "MaxSpotInstanceCountExceeded": (AccessError, _QUOTA),
        "ResourceLimitExceeded": (AccessError, _QUOTA),
        "ServiceQuotaExceededException": (AccessError, _QUOTA),
        "VcpuLimitExceeded": (AccessError, _QUOTA),
        "CapacityError": (CapacityError, _ELSEWHERE),
        "InsufficientCapacity": (CapacityError, _ELSEWHERE),
        "InsufficientHostCapacity": (CapacityError, _ELSEWHERE),
        "InsufficientInstanceCapacity": (CapacityError, _ELSEWHERE),
        "InsufficientReservedInstanceCapacity": (CapacityError, _ELSEWHERE),
        "ReservationCapacityExceeded": (CapacityError, _ELSEWHERE),
        "SpotMaxPriceTooLow": (CapacityError, _ELSEWHERE),
        "ClientException": (RejectedError, _OPTIONS),
        "InvalidCapacityReservationId.NotFound": (RejectedError, _OPTIONS),
        "InvalidInstanceType": (RejectedError, "correct the option instance_types"),
        "InvalidParameterException": (RejectedError, _OPTIONS),
        "InvalidParameterValue": (RejectedError, _OPTIONS),
        "ResourceInUse": (RejectedError, "there is a job of that name already"),
        "ResourceNotFound": (RejectedError, _OPTIONS),
        "ResourceNotFoundException": (RejectedError, _OPTIONS),
        "ValidationError": (RejectedError, _OPTIONS),
        "ValidationException": (RejectedError, _OPTIONS),
    }
)
"""What is not here passes when it comes with a status of 5xx or 429, and is refused for good when not."""

# What of a refused request is wrong, where the message tells more than the code.
_SAID: Final[tuple[tuple[str, type[BackendError], str], ...]] = (
    (
        r"queue\b.*\b(not exist|not found|not valid|invalid)|(not exist|not found).*job-queue",
        RejectedError,
        "correct the option queue",
    ),
    (r"queue\b.*\bdisabled", CapacityError, "have the queue enabled; " + _ELSEWHERE),
    (
        r"assume.*role|role\b.*\b(not exist|not found|invalid|not valid|cannot be assumed)",
        RejectedError,
        "correct the roles among the pool's options, and what they trust",
    ),
    (
        r"(instance ?type).*(not|invalid|unsupported)|(not|invalid|unsupported|enum value set).*instance ?type|ml\.\w+\.\w+",
        RejectedError,
        "correct the instance type among the pool's options, or take another region",
    ),
    (
        r"(image|ecr|repository)\b.*(not exist|not found|invalid|cannot|unable)|cannot find.*image",
        RejectedError,
        "correct the option image, and allow the execution role to pull it",
    ),
)

# By the client's own exceptions; the most special class of an exception decides. Where none is listed the request is wrong.
EXCEPTIONS: Final[Mapping[type[Exception], tuple[type[BackendError], str]]] = MappingProxyType(
    {
        exceptions.HTTPClientError: (TransientError, LATER),
        exceptions.ConnectionError: (TransientError, LATER),
        exceptions.IncompleteReadError: (TransientError, LATER),
        exceptions.ChecksumError: (TransientError, LATER),
        exceptions.MetadataRetrievalError: (TransientError, LATER),
        exceptions.CapacityNotAvailableError: (TransientError, LATER),
        exceptions.SSLError: (
            AccessError,
            "correct the endpoint's certificate, or REQUESTS_CA_BUNDLE",
        ),
        exceptions.InvalidProxiesConfigError: (AccessError, "correct the proxy's settings"),
        exceptions.NoCredentialsError: (AccessError, "put credentials into the pool's connection"),
        exceptions.NoAuthTokenError: (AccessError, _CREDENTIALS),
        exceptions.PartialCredentialsError: (AccessError, _CREDENTIALS),
        exceptions.CredentialRetrievalError: (AccessError, _CREDENTIALS),
        exceptions.TokenRetrievalError: (AccessError, _CREDENTIALS),
        exceptions.UnknownCredentialError: (AccessError, _CREDENTIALS),
        exceptions.UnknownTokenProviderError: (AccessError, _CREDENTIALS),
        exceptions.RefreshWithMFAUnsupportedError: (AccessError, _CREDENTIALS),
        exceptions.SSOError: (AccessError, _CREDENTIALS),
        exceptions.LoginError: (AccessError, _CREDENTIALS),
        exceptions.ProfileNotFound: (AccessError, "correct the profile of the pool's connection"),
        exceptions.ConfigNotFound: (AccessError, "correct AWS_CONFIG_FILE"),
        exceptions.ConfigParseError: (AccessError, "correct the AWS configuration file"),
        exceptions.InvalidConfigError: (AccessError, "correct the AWS configuration file"),
        exceptions.InfiniteLoopConfigError: (AccessError, "correct the AWS configuration file"),
        exceptions.MissingDependencyException: (AccessError, "install what it names"),
        exceptions.NoRegionError: (RejectedError, "set the option region"),
        exceptions.EndpointProviderError: (RejectedError, "correct the option region"),
        exceptions.BotoCoreError: (RejectedError, _OPTIONS),
    }
)

FAILURES: Final = (exceptions.BotoCoreError, exceptions.ClientError)
"""All that a call can raise."""


def explain(error: Exception, *, backend: str, permission: str) -> BackendError:
    """Return the exception for what a call raised; `permission` is what the call needs, such as `batch:SubmitJob`."""
    if isinstance(error, exceptions.ClientError):
        told = _explain_answer(error, backend, permission)
        if isinstance(told, TransientError):
            told.retry_after = wait_of(error)
        return told
    kind, remedy = next(EXCEPTIONS[one] for one in type(error).__mro__ if one in EXCEPTIONS)
    return kind(f"{permission} did not work: {_one_line(str(error))}; {remedy}", backend=backend)


def code_of(error: BaseException | None) -> str:
    """Return AWS's code of what a call raised; empty where there is none."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def wait_of(error: Exception) -> timedelta | None:
    """Return how long AWS asks to wait; None where it does not say."""
    headers: Any = _answer(error).get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return retry_after(headers.get("retry-after"))  # the client has all names in lower case


def is_throttled(error: Exception) -> bool:
    """Return whether the call was one too many."""
    return code_of(error) in THROTTLED or _status(error) == 429


def _explain_answer(error: Exception, backend: str, permission: str) -> BackendError:
    code, text = code_of(error), str(_answer(error).get("Error", {}).get("Message", ""))
    kind, remedy = CODES.get(code, _by_status(_status(error)))
    if kind is RejectedError:
        kind, remedy = _by_text(text, remedy)
    if kind is AccessError and remedy == _ALLOW:
        named = re.search(r"perform:? (\w[\w-]*:\w+)", text)
        return AccessError(
            f"the permission {named[1] if named else permission} is missing; {_ALLOW}: {_one_line(text)}",
            backend=backend,
        )
    return kind(f"AWS says {code} to {permission}: {_one_line(text)}; {remedy}", backend=backend)


def _by_status(status: int) -> tuple[type[BackendError], str]:
    return (TransientError, LATER) if status >= 500 or status == 429 else (RejectedError, _OPTIONS)


def _by_text(text: str, remedy: str) -> tuple[type[BackendError], str]:
    for pattern, kind, said in _SAID:
        if re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            return kind, said
    return RejectedError, remedy


def _status(error: Exception) -> int:
    return int(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _answer(error: BaseException | None) -> Mapping[str, Any]:
    """Return what AWS answered; nothing where it did not, which some exceptions say by an answer of None."""
    return getattr(error, "response", None) or {}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500] or "nothing"
