"""SkyPilot's API server over HTTP, without SkyPilot: its own client brings a hundred packages, which Airflow may not bear.

A request is taken at once and worked on afterwards; its answer is fetched by its id.

Source: SkyPilot 0.14, docs.skypilot.co/en/latest/reference/api-server/api-server.html, and sky/server/requests/payloads.py.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import httpx

from spillway.backends.skew import clock_ahead
from spillway.backends.skypilot import parse
from spillway.backends.skypilot.failures import (
    LATER,
    Failure,
    Kind,
    by_status,
    exception,
    failure,
    forbidden,
    readable,
)
from spillway.backends.skypilot.render import NAME
from spillway.backends.throttling import retry_after
from spillway.errors import SpecError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spillway.backends.protocol import Connection
    from spillway.backends.skypilot.parse import Cluster, Request

PORT: Final = 46580
TIMEOUT_SECONDS: Final = 20.0
"""How long an answer may take. The server's workers take some seconds when they are cold."""

API_VERSION: Final = "62"
VERSION: Final = "0.14.1"
"""What this was written against; the server tells when it cannot speak to that."""

_FAILED: Final = 500
_REQUEST_ID: Final = "X-Skypilot-Request-ID"
_FIELDS: Final = ("request_id", "name", "status", "cluster_name", "created_at", "request_body")
_CLIENT_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    httpx.StreamError,
)
_OUR_JOB: Final = 1
"""A cluster is for one job, and this is its number."""

_LOG_LINES: Final = 200
"""At the end of a launch's log is why it failed."""


class FailedRequestError(Exception):
    """A request that the server took and could not do; never leaves this package."""

    def __init__(self, reason: Failure) -> None:
        self.reason = reason
        super().__init__(str(reason))


class ApiServer:
    """One API server.

    The connection's host is a name or a URL; its password a service account's token, or with a login those of the proxy before
    it. Its `extra` may have `ca_file` with the authorities to believe, `verify`, false to believe any, and `headers`.

    Attributes:
        ahead: How far the server's clock is ahead of ours, as its last answer had it; zero for a few seconds.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        configuration: Mapping[str, Any] | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.where = _url(connection)
        self.ahead = timedelta(0)
        self._about_us = {
            "env_vars": _identity(connection),
            "entrypoint": "spillway",
            "using_remote_api_server": True,
            "override_skypilot_config": dict(configuration or {}),
        }
        self._http = httpx.Client(
            base_url=self.where,
            headers=_headers(connection),
            auth=(connection.login, connection.password or "") if connection.login else None,
            timeout=timeout_seconds,
            # Calls are rare, and nobody closes a backend.
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=_verification(connection),
            transport=transport,
        )

    def clusters(self, names: Sequence[str] | None = None) -> dict[str, Cluster]:
        """Return the clusters of these names, or all, as the server saw them within the last minute, by name."""
        answer = self.call(
            "/status",
            {
                "cluster_names": None if names is None else list(names),
                "all_users": True,
                "include_credentials": False,
                "include_handle": False,
            },
        )
        with readable(self.where):
            return {one.name: one for one in map(parse.cluster, answer)}

    def requests(self, cluster: str | None = None) -> list[Request]:
        """Return what was asked for one cluster within the last day, or what is being done for all of them now."""
        query = [("fields", field) for field in _FIELDS]
        if cluster is not None:
            query += [("cluster_name", cluster), ("all_status", "true")]
        answer = self._expect(self._request("GET", "/api/status", params=query))
        with readable(self.where):
            return [parse.request(one) for one in answer.json() if one.get("cluster_name")]

    def launch(self, body: Mapping[str, Any]) -> str:
        """Have a cluster made and its task begun; return the request's id."""
        return self.begin("/launch", body)

    def down(self, cluster: str) -> str:
        """Have a cluster taken down; return the request's id. One that is not there fails, later."""
        return self.begin("/down", {"cluster_name": cluster})

    def cancel(self, requests: Sequence[str]) -> None:
        """Stop what the server is doing for these requests; those that are over are no error."""
        self.call("/api/cancel", {"request_ids": list(requests)})

    def ask_job(self, cluster: str) -> str:
        """Ask a cluster about its job; return the request's id, for `job_answer`."""
        return self.begin("/job_status", {"cluster_name": cluster, "job_ids": [_OUR_JOB]})

    def job_answer(self, request: str) -> str | None:
        """Return the state of a cluster's job; None when there is none yet, or the cluster cannot be asked."""
        try:
            answer = self.result(request)
        except FailedRequestError as error:
            if error.reason.kind in {Kind.GONE, Kind.LATER}:
                return None
            raise exception(error.reason) from error
        with readable(self.where):
            return parse.job_state(answer)

    def output(self, cluster: str, *, lines: int = 0) -> str:
        """Return what a cluster's job printed so far, its last `lines` or all; nothing when the cluster is gone."""
        body = {"cluster_name": cluster, "job_id": _OUR_JOB, "follow": False, "tail": lines}
        return self._expect(self._request("POST", "/logs", json={**self._about_us, **body})).text

    def failure_of(self, request: str) -> Failure | None:
        """Return why a request that is over failed; None when it did not, or is not known any more."""
        try:
            self.result(request)
        except FailedRequestError as error:
            reason = error.reason
            return (
                replace(reason, forbidden=forbidden(self._log(request)))
                if reason.is_vague
                else reason
            )
        return None

    def call(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the answer of a request that is done at once.

        Raises:
            BackendError: It could not be done.
        """
        try:
            return self.result(self.begin(path, body))
        except FailedRequestError as error:
            raise exception(error.reason) from error

    def begin(self, path: str, body: Mapping[str, Any]) -> str:
        """Hand a request in; return its id."""
        answer = self._expect(self._request("POST", path, json={**self._about_us, **body}))
        name = answer.headers.get(_REQUEST_ID)
        if not name:
            raise TransientError(
                f"what answers at {self.where} does not offer SkyPilot's API; correct the connection's host and port",
                backend=NAME,
            )
        return str(name)

    def result(self, request: str) -> Any:
        """Return a request's answer once there is one.

        Raises:
            FailedRequestError: The server could not do it.
            BackendError: The server could not be asked.
        """
        answer = self._request("GET", "/api/get", params={"request_id": request})
        if answer.status_code == _FAILED:
            reason = _failure_in(answer)
            if reason is not None:
                raise FailedRequestError(reason)
        self._expect(answer)
        with readable(self.where):
            return json.loads(answer.json()["return_value"])

    def _log(self, request: str) -> str:
        """Return the end of what the server wrote while it did a request; nothing when that is not kept any more."""
        about = {"request_id": request, "tail": _LOG_LINES, "follow": False, "format": "plain"}
        answer = self._request("GET", "/api/stream", params=about)
        return answer.text if answer.is_success else ""

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except _CLIENT_ERRORS as error:
            raise TransientError(
                f"SkyPilot at {self.where} did not answer: {str(error) or type(error).__name__}; {LATER}",
                backend=NAME,
            ) from error
        self.ahead = clock_ahead(answer.headers.get("Date"), datetime.now(UTC))
        return answer

    def _expect(self, answer: httpx.Response) -> httpx.Response:
        if not answer.is_success:
            wait = retry_after(answer.headers.get("Retry-After"))
            raise by_status(answer.status_code, answer.text, self.where, retry_after=wait)
        return answer


def _failure_in(answer: httpx.Response) -> Failure | None:
    """Return why a request failed; None when it is the server itself that failed."""
    try:
        return failure(answer.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return None


def _identity(connection: Connection) -> dict[str, str]:
    """Return whom a server without logins takes us for: eight hexadecimal digits and a name."""
    name = connection.login or "spillway"
    return {
        "SKYPILOT_USER_ID": hashlib.sha256(name.encode()).hexdigest()[:8],
        "SKYPILOT_USER": name,
    }


def _url(connection: Connection) -> str:
    if not connection.host:
        raise SpecError("the connection to SkyPilot needs a host: that of its API server")
    host = connection.host.rstrip("/")
    has_scheme = host.startswith(("http://", "https://"))
    try:
        url = httpx.URL(host if has_scheme else f"http://{host}")
        port = connection.port or url.port or (None if has_scheme else PORT)
        return str(url.copy_with(port=port)).rstrip("/")
    except httpx.InvalidURL as error:
        raise SpecError(
            f"{connection.host} is no address of an API server of SkyPilot: {error}"
        ) from error


def _headers(connection: Connection) -> dict[str, str]:
    more: object = connection.extra.get("headers", {})
    if not isinstance(more, dict):
        raise SpecError(
            "`headers` in the extra of the connection to SkyPilot has to be a JSON object"
        )
    given = cast("dict[str, object]", more)
    headers = {name: str(value) for name, value in given.items()}
    headers |= {"X-SkyPilot-API-Version": API_VERSION, "X-SkyPilot-Version": VERSION}
    if connection.password and not connection.login:
        headers |= {
            "Authorization": f"Bearer {connection.password}",
            "X-Skypilot-Auth-Mode": "token",
        }
    return headers


def _verification(connection: Connection) -> bool | ssl.SSLContext:
    ca_file = connection.extra.get("ca_file")
    if not ca_file:
        return connection.extra.get("verify", True) is not False
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise SpecError(f"cannot read the ca_file {ca_file} of the connection: {error}") from error
