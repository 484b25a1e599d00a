"""Clients of AWS's services, and calls through them: the one place that talks, slows down, and translates errors."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]  # none of the three ships types
from botocore import (  # pyright: ignore[reportMissingTypeStubs]
    xform_name,  # pyright: ignore[reportUnknownVariableType]
)
from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

from spillway.backends.aws import failures
from spillway.backends.aws.pace import Pace
from spillway.backends.skew import clock_ahead
from spillway.errors import SpecError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.backends.protocol import Connection

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 20.0

# The client would repeat a request that it had no answer to, and `SubmitJob` starts a second job then. Whoever calls
# again finds the first one by its name.
_CONFIG: Final[dict[str, Any]] = {
    "retries": {"mode": "standard", "total_max_attempts": 1},
    "connect_timeout": CONNECT_SECONDS,
    "read_timeout": READ_SECONDS,
    "user_agent_extra": "spillway",
}


class Aws:
    """AWS as one pool sees it: in one region, with one connection's credentials; `user` names the pool in messages.

    Attributes:
        region: Where it is.
        ahead: How far AWS's clock is ahead of ours, as its last answer had it; zero for a few seconds.
    """

    def __init__(
        self,
        user: str,
        connection: Connection | None,
        *,
        backend: str,
        region: str | None,
        pace: Pace | None = None,
    ) -> None:
        session: Any = getattr(connection, "client", None)
        self._session: Any = session if session is not None else cast("Any", boto3).Session()
        self._backend = backend
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}
        self._endpoint = _endpoint(connection)
        self.ahead = timedelta(0)
        self.region: str = region or self._session.region_name or ""
        if not self.region:
            raise SpecError(
                f"{user} needs the option region, or a region in its connection: such as `us-east-1`"
            )

    def call(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Return the service's answer to an operation, such as `SubmitJob`.

        Raises:
            BackendError: By what can be done about it; `failures` has the table.
        """
        permission = f"{service}:{operation}"
        wait = self._pace.seconds_left()
        if wait > 0:
            raise TransientError(
                f"AWS asks us to slow down: {permission} waits for {wait:.1f} s more",
                backend=self._backend,
                retry_after=timedelta(seconds=wait),
            )
        try:
            method = getattr(self._client(service), str(xform_name(operation)))
            found: dict[str, Any] = method(**parameters)
        except failures.FAILURES as error:
            told = failures.explain(error, backend=self._backend, permission=permission)
            if failures.is_throttled(error) and isinstance(told, TransientError):
                pause = self._pace.throttled(told.retry_after)
                told.retry_after = max(pause, told.retry_after or pause)
            raise told from error
        self._pace.answered()
        self.ahead = clock_ahead(_date(found), datetime.now(UTC))
        return found

    def signed_url(
        self, service: str, operation: str, *, headers: Mapping[str, str], seconds: int
    ) -> str:
        """Return a URL by which who has it, and sends these headers, asks in our name for a while, at AWS's own endpoint.

        Raises:
            BackendError: There are no credentials to sign it with.
        """

        def add_headers(request: Any, **_: Any) -> None:
            for name, value in headers.items():
                request.headers[name] = value

        try:
            with self._lock:
                client = self._session.client(service, region_name=self.region)
            client.meta.events.register(f"before-sign.{service}.{operation}", add_headers)
            url = client.generate_presigned_url(
                xform_name(operation), ExpiresIn=seconds, HttpMethod="GET"
            )
        except failures.FAILURES as error:
            permission = f"{service}:{operation}"
            raise failures.explain(error, backend=self._backend, permission=permission) from error
        return str(url)

    def _client(self, service: str) -> Any:
        with self._lock:  # sessions may not be used by two threads at once; clients may
            if service not in self._clients:
                self._clients[service] = self._session.client(
                    service,
                    region_name=self.region,
                    endpoint_url=self._endpoint,
                    config=Config(**_CONFIG),
                )
            return self._clients[service]


def _date(answer: Mapping[str, Any]) -> str | None:
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers.get("date")


def _endpoint(connection: Connection | None) -> str | None:
    told = connection.extra.get("endpoint_url") if connection is not None else None
    return str(told) if told else None
