"""Errors of Google's clients, sorted by what the caller can do."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, TransportError
from google.rpc.error_details_pb2 import RetryInfo

from spillway.backends.throttling import retry_after
from spillway.errors import AccessError, BackendError, CapacityError, RejectedError, TransientError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

LATER: Final = "the same request may succeed later"
_CREDENTIALS: Final = "renew the credentials in the pool's connection"
_CLOCK: Final = "set this machine's clock right"
_WRONG: Final = "correct the option or the shape that it names"
_ENDPOINT: Final = "correct the option endpoint, or update the client library"

# Sources: google.api_core.exceptions; Google Cloud, API design guide, "Errors", cloud.google.com/apis/design/errors.
KINDS: Final[Mapping[type[api.GoogleAPIError], tuple[type[BackendError], str]]] = MappingProxyType(
    {
        api.GoogleAPIError: (TransientError, LATER),
        api.GoogleAPICallError: (TransientError, LATER),
        api.RetryError: (TransientError, LATER),
        api.DuplicateCredentialArgs: (RejectedError, _CREDENTIALS),
        api.Redirection: (RejectedError, _ENDPOINT),
        api.MovedPermanently: (RejectedError, _ENDPOINT),
        api.NotModified: (TransientError, LATER),
        api.TemporaryRedirect: (TransientError, LATER),
        api.ResumeIncomplete: (TransientError, LATER),
        api.ClientError: (RejectedError, _WRONG),
        api.BadRequest: (RejectedError, _WRONG),
        api.InvalidArgument: (RejectedError, _WRONG),
        api.FailedPrecondition: (RejectedError, _WRONG),
        api.OutOfRange: (RejectedError, _WRONG),
        api.Unauthorized: (AccessError, _CREDENTIALS),
        api.Unauthenticated: (AccessError, _CREDENTIALS),
        api.Forbidden: (AccessError, "give the connection's account a role that has it"),
        api.PermissionDenied: (AccessError, "give the connection's account a role that has it"),
        api.NotFound: (RejectedError, "correct the options project and region"),
        api.MethodNotAllowed: (RejectedError, _ENDPOINT),
        api.Conflict: (TransientError, LATER),
        api.AlreadyExists: (RejectedError, "another job has this name"),
        api.Aborted: (TransientError, LATER),
        api.LengthRequired: (RejectedError, _ENDPOINT),
        api.PreconditionFailed: (RejectedError, _WRONG),
        api.RequestRangeNotSatisfiable: (RejectedError, _WRONG),
        api.TooManyRequests: (CapacityError, "ask Google for more quota, or let another pool do"),
        api.ResourceExhausted: (CapacityError, "ask Google for more quota, or let another pool do"),
        api.Cancelled: (TransientError, LATER),
        api.ServerError: (TransientError, LATER),
        api.InternalServerError: (TransientError, LATER),
        api.Unknown: (TransientError, LATER),
        api.DataLoss: (TransientError, LATER),
        api.MethodNotImplemented: (RejectedError, _ENDPOINT),
        api.BadGateway: (TransientError, LATER),
        api.ServiceUnavailable: (TransientError, LATER),
        api.GatewayTimeout: (TransientError, LATER),
        api.DeadlineExceeded: (TransientError, LATER),
    }
)

# Source: google.rpc.ErrorReason, github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto
REASONS: Final[Mapping[str, tuple[type[BackendError], str]]] = MappingProxyType(
    {
        "RATE_LIMIT_EXCEEDED": (TransientError, "Google asks us to slow down"),
        "SERVICE_DISABLED": (
            AccessError,
            "enable the API in the project: gcloud services enable {service}",
        ),
        "BILLING_DISABLED": (AccessError, "enable billing of the project"),
        "IAM_PERMISSION_DENIED": (
            AccessError,
            "give the connection's account a role with the permission {permission} on {resource}",
        ),
        "ACCESS_TOKEN_EXPIRED": (AccessError, _CREDENTIALS),
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT": (
            AccessError,
            "let the connection's scopes include https://www.googleapis.com/auth/cloud-platform",
        ),
        "CREDENTIALS_MISSING": (AccessError, _CREDENTIALS),
    }
)

_STOCKOUT: Final = re.compile(r"RESOURCE_POOL_EXHAUSTED|STOCKOUT|does not have enough resources")
_QUOTA_PER_TIME: Final = re.compile(r"per (minute|second|day)|PerMinute|rate limit", re.IGNORECASE)
# What Google's token server says of a token that was made too early or too late.
_SKEW: Final = re.compile(r"reasonable timeframe|check your iat and exp", re.IGNORECASE)
# gRPC says of a token that could not be had only that the service is unavailable.
_NO_TOKEN: Final = re.compile(r"RefreshError|invalid_grant|invalid_client")


@contextmanager
def translated(backend: str, service: str, key: str | None = None) -> Generator[None]:
    """Raise what Google's client raises as one of our errors, for `key` where there is one."""
    try:
        yield
    except api.GoogleAPIError as error:
        kind, remedy = classify(error)
        said = f"{service} says: {' '.join(str(error).split())[:600]}; {remedy}"
        told = kind(said, backend=backend, key=key)
        if isinstance(told, TransientError):
            told.retry_after = wait_of(error)
        raise told from error
    except GoogleAuthError as error:
        passes = isinstance(error, TransportError) or bool(cast("Any", error).retryable)
        refused = AccessError, _CLOCK if _SKEW.search(str(error)) else _CREDENTIALS
        kind, remedy = (TransientError, LATER) if passes else refused
        raise kind(
            f"no token for {service}: {error}; {remedy}", backend=backend, key=key
        ) from error
    except OSError as error:  # what `requests` raises is one
        raise TransientError(
            f"{service} did not answer: {error}; {LATER}", backend=backend, key=key
        ) from error


@contextmanager
def question() -> Generator[None]:
    """Make every answer but "you may not ask" a `TransientError`: a refused question says nothing of any job."""
    try:
        yield
    except (RejectedError, CapacityError) as error:
        wait = wait_of(error.__cause__)
        raise TransientError(
            str(error), backend=error.backend, key=error.key, retry_after=wait
        ) from error


def wait_of(error: BaseException | None) -> timedelta | None:
    """Return how long Google asks to wait, in the answer's header or a detail of it; None where it does not say.

    Source: Google Cloud, API design guide, "Errors", `google.rpc.RetryInfo`, cloud.google.com/apis/design/errors.
    """
    told: Any = error  # the library has no types for it
    headers: Any = getattr(getattr(told, "response", None), "headers", None) or {}
    delays = [_delay(detail) for detail in getattr(told, "details", ())]
    waits = [retry_after(headers.get("Retry-After")), *delays]
    return max((wait for wait in waits if wait is not None), default=None)


def classify(error: api.GoogleAPIError) -> tuple[type[BackendError], str]:
    """Return our class for an error, and what to do about it."""
    reason, facts = _error_info(error)
    if reason in REASONS:
        kind, remedy = REASONS[reason]
        return kind, remedy.format_map(_Facts(facts))
    kind, remedy = next(KINDS[one] for one in type(error).__mro__ if one in KINDS)
    text = str(error)
    if kind is TransientError and _NO_TOKEN.search(text):
        return AccessError, _CREDENTIALS
    if kind is CapacityError and _QUOTA_PER_TIME.search(text):
        return TransientError, "Google asks us to slow down"
    if _STOCKOUT.search(text):
        return CapacityError, "another pool may do"
    return kind, remedy


def _delay(detail: object) -> timedelta | None:
    """Return what a detail of an error says of waiting: of one over gRPC, or of one in JSON."""
    if isinstance(detail, RetryInfo):
        wait: timedelta = detail.retry_delay.ToTimedelta()
        return wait
    if not isinstance(detail, dict):
        return None
    told = re.fullmatch(r"(\d{1,9}(\.\d+)?)s", str(cast("Any", detail).get("retryDelay")))
    return None if told is None else timedelta(seconds=float(told[1]))


class _Facts(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"(no {name} named)"


def _error_info(error: api.GoogleAPIError) -> tuple[str, dict[str, str]]:
    told: Any = error  # the library has no types for it
    facts: Any = getattr(told, "metadata", None) or {}
    return str(getattr(told, "reason", None) or ""), {str(name): str(facts[name]) for name in facts}
