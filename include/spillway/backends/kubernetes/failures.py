"""Every way in which an API server, or the road to it, can say no; sorted by what the caller can do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

import urllib3.exceptions
from kubernetes.client.exceptions import (  # pyright: ignore[reportMissingTypeStubs]  # it has no types
    ApiException,
    OpenApiException,
)
from kubernetes.config.config_exception import (  # pyright: ignore[reportMissingTypeStubs]
    ConfigException,
)

from spillway.backends.throttling import retry_after
from spillway.errors import AccessError, BackendError, CapacityError, RejectedError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

NAME: Final = "kubernetes"

LATER: Final = "the same request may succeed later"

CLIENT_ERRORS: Final = (
    OpenApiException,
    ConfigException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,
)
"""Everything that the client and what it is made of raise; ValueError for an answer that is no JSON."""


class MissingError(RejectedError):
    """There is no such object."""


class GoneError(TransientError):
    """The history that was asked for is forgotten: list anew."""


class ConflictError(TransientError):
    """Somebody else changed the object, or made it first: look at it again."""


_WEBHOOK: Final = "admission webhook"
_POLICY: Final = "admission policy"
_UNKNOWN_FIELD: Final = "failed to create typed patch object"
"""Old API servers say this with 500, as if they were broken."""

# Source: Kubernetes, API conventions, "HTTP Status codes" and "Reasons",
# github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md.
_BY_STATUS: Final[Mapping[int, tuple[type[BackendError], str]]] = {
    400: (RejectedError, "correct the pool's options"),
    401: (
        AccessError,
        "renew the credentials in the pool's connection, or give its role an access entry (EKS)",
    ),
    404: (MissingError, "make it, or correct the option that names it"),
    405: (RejectedError, "the API server does not offer that"),
    406: (RejectedError, "the API server does not offer that"),
    409: (ConflictError, LATER),
    410: (GoneError, LATER),
    413: (RejectedError, "put large arguments into the store and pass their place"),
    415: (RejectedError, "server-side apply needs Kubernetes 1.22"),
    422: (RejectedError, "correct the pool's options"),
    429: (TransientError, LATER),
}


def explain(error: Exception, action: str, *, key: str | None = None) -> BackendError:
    """Return the exception for what went wrong when `action`, such as `create jobs.batch in ml`, was tried."""
    status = int(getattr(error, "status", None) or 0) if isinstance(error, ApiException) else 0
    if status > 0:
        headers = cast("Mapping[str, str]", getattr(error, "headers", None) or {})
        wait = retry_after(headers.get("Retry-After"))
        return by_status(status, _body(error), action, key=key, wait=wait)
    said = " ".join((str(error) or type(error).__name__).split())[:500]
    if isinstance(error, ConfigException):
        return AccessError(
            f"the credentials of the pool's connection cannot be had ({said}); renew them",
            backend=NAME,
            key=key,
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return AccessError(
            f"the API server is not who the connection says ({said}); correct its certificate authority",
            backend=NAME,
            key=key,
        )
    return TransientError(
        f"the API server could not be asked to {action}: {said}; {LATER}", backend=NAME, key=key
    )


def by_status(
    status: int,
    body: Mapping[str, Any],
    action: str,
    *,
    key: str | None = None,
    wait: timedelta | None = None,
) -> BackendError:
    """Return the exception for an answer of the API server: its HTTP status, and the `Status` that came with it."""
    said = " ".join(str(body.get("message") or body.get("reason") or "").split())[:800]
    if status == 403:
        kind, remedy = _forbidden(said, action)
    elif _UNKNOWN_FIELD in said:
        kind, remedy = RejectedError, "the cluster is too old for the pool's options"
    else:
        kind, remedy = _BY_STATUS.get(
            status, (TransientError if status >= 500 else RejectedError, LATER)
        )
    text = f"Kubernetes answers {status} to {action}: {said}; {remedy}"
    if kind is TransientError:
        return TransientError(text, backend=NAME, key=key, retry_after=wait)
    return kind(text, backend=NAME, key=key)


def _forbidden(said: str, action: str) -> tuple[type[BackendError], str]:
    """Tell a quota that is used up, and a policy that says no, from a permission that is missing."""
    if "exceeded quota" in said:
        return CapacityError, "the namespace's ResourceQuota is used up; another pool may do"
    if _WEBHOOK in said or _POLICY in said or "violates PodSecurity" in said:
        return RejectedError, "a policy of the cluster forbids it; correct the pool's options"
    return (
        AccessError,
        f"let the connection's user {action}; docs/backends/kubernetes.md has the Role",
    )


def _body(error: Any) -> Mapping[str, Any]:
    """Return the `Status` that the server sent; what else it sent, such as a proxy's page, as its message."""
    text = str(error.body or "")
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        return cast("dict[str, Any]", content)
    return {"message": text or str(error.reason or "")}
