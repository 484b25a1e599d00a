"""Ray's Jobs API over HTTP, without Ray: to import it takes seconds, and its version would have to be the cluster's.

Source: Ray, docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import httpx

from spillway.backends.ray_jobs import parse
from spillway.backends.ray_jobs.failures import LATER, NAME, by_status, readable
from spillway.backends.skew import clock_ahead
from spillway.backends.throttling import retry_after
from spillway.errors import SpecError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.backends.protocol import Connection
    from spillway.backends.ray_jobs.parse import JobRow

PORT: Final = 8265
TIMEOUT_SECONDS: Final = 8.0
UPLOAD_SECONDS: Final = 60.0

_UNKNOWN: Final = "does not exist"
_NODE_UNREACHABLE: Final = "Cannot connect to host"
_CLIENT_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    httpx.StreamError,
)


class JobsClient:
    """One cluster, through its dashboard.

    The connection's host is a name or a URL, its password the cluster's token; its `extra` may have `ca_file` with the
    authorities to believe, `verify`, false to believe any, and `headers` that a proxy on the way asks for.

    Attributes:
        ahead: How far the cluster's clock is ahead of ours, as its last answer had it; zero for a few seconds.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        transport: httpx.BaseTransport | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.where = _url(connection)
        self.ahead = timedelta(0)
        self._http = httpx.Client(
            base_url=self.where,
            headers=_headers(connection),
            timeout=timeout_seconds,
            # Calls are rare, and nobody closes a backend.
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=_verification(connection),
            transport=transport,
        )

    def submit(self, request: Mapping[str, Any]) -> None:
        """Hand a job in. A name that Ray knows is an error, and whose it is cannot be told from the answer."""
        self._expect(self._request("POST", "/api/jobs/", json=request))

    def job(self, submission_id: str) -> JobRow | None:
        """Return the job of this name; None when Ray does not know it."""
        answer = self._request("GET", f"/api/jobs/{submission_id}")
        if _is_unknown(answer):
            return None
        content = self._expect(answer).json
        with readable(self.where):
            return parse.row(content())

    def jobs(self) -> list[JobRow]:
        """Return every job that was submitted to the cluster, those that are over too."""
        content = self._expect(self._request("GET", "/api/jobs/")).json
        with readable(self.where):
            return [parse.row(one) for one in content() if one.get("type") == "SUBMISSION"]

    def stop(self, submission_id: str) -> None:
        """Have the job stopped; one that is over, or that Ray does not know, is no error."""
        answer = self._request("POST", f"/api/jobs/{submission_id}/stop")
        if not _is_unknown(answer):
            self._expect(answer)

    def output(self, submission_id: str) -> str:
        """Return all that the job printed so far; nothing when the node that has it is gone."""
        answer = self._request("GET", f"/api/jobs/{submission_id}/logs")
        if _is_unknown(answer) or (answer.is_server_error and _NODE_UNREACHABLE in answer.text):
            return ""
        content = self._expect(answer).json
        with readable(self.where):
            return str(content()["logs"])

    def versions(self, *, python: bool) -> tuple[str, str]:
        """Return the cluster's version of Ray, and of Python where that is asked for."""
        content = self._expect(self._request("GET", "/api/version")).json
        with readable(self.where):
            ray = str(content()["ray_version"])
        if not python:
            return ray, ""
        content = self._expect(self._request("GET", "/api/v0/cluster_metadata")).json
        with readable(self.where):
            return ray, str(content()["data"]["pythonVersion"])

    def status(self) -> Mapping[str, Any]:
        """Return what the cluster has, and what of it is used."""
        content = self._expect(self._request("GET", "/api/cluster_status")).json
        with readable(self.where):
            return dict(content())

    def send_package(self, name: str, data: bytes) -> str:
        """Have the cluster keep a package, unless it does; return its URI."""
        path = f"/api/packages/gcs/{name}"
        answer = self._request("GET", path)
        if _is_unknown(answer):
            answer = self._request("PUT", path, content=data, timeout=UPLOAD_SECONDS)
        self._expect(answer)
        return f"gcs://{name}"

    def _request(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except _CLIENT_ERRORS as error:
            raise TransientError(
                f"Ray at {self.where} did not answer: {str(error) or type(error).__name__}; {LATER}",
                backend=NAME,
            ) from error
        self.ahead = clock_ahead(answer.headers.get("Date"), datetime.now(UTC))
        return answer

    def _expect(self, answer: httpx.Response) -> httpx.Response:
        if not answer.is_success:
            wait = retry_after(answer.headers.get("Retry-After"))
            raise by_status(answer.status_code, answer.text, self.where, retry_after=wait)
        return answer


def _is_unknown(answer: httpx.Response) -> bool:
    """Return whether it is Ray that says so: a proxy on the way has 404s of its own."""
    return answer.status_code == 404 and _UNKNOWN in answer.text


def _url(connection: Connection) -> str:
    if not connection.host:
        raise SpecError("the connection to Ray needs a host: that of the cluster's dashboard")
    host = connection.host.rstrip("/")
    has_scheme = host.startswith(("http://", "https://"))
    try:
        url = httpx.URL(host if has_scheme else f"http://{host}")
        port = connection.port or url.port or (None if has_scheme else PORT)
        return str(url.copy_with(port=port)).rstrip("/")
    except httpx.InvalidURL as error:
        raise SpecError(f"{connection.host} is no address of a Ray dashboard: {error}") from error


def _headers(connection: Connection) -> dict[str, str]:
    more: object = connection.extra.get("headers", {})
    if not isinstance(more, dict):
        raise SpecError("`headers` in the extra of the connection to Ray has to be a JSON object")
    given = cast("dict[str, object]", more)
    headers = {name: str(value) for name, value in given.items()}
    if connection.password:
        headers["Authorization"] = f"Bearer {connection.password}"
    return headers


def _verification(connection: Connection) -> bool | ssl.SSLContext:
    ca_file = connection.extra.get("ca_file")
    if not ca_file:
        return connection.extra.get("verify", True) is not False
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise SpecError(f"cannot read the ca_file {ca_file} of the connection: {error}") from error
