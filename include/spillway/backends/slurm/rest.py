"""Slurm through slurmrestd, with a JWT."""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import httpx

from spillway.backends.skew import difference
from spillway.backends.slurm import failures, parse
from spillway.backends.slurm.capacity import NodeRoom, rest_nodes
from spillway.backends.slurm.client import Marks
from spillway.backends.slurm.failures import LATER, NAME
from spillway.backends.slurm.render import JobRequest, rest_request
from spillway.backends.throttling import retry_after
from spillway.errors import (
    AccessError,
    BackendError,
    RejectedError,
    SpecError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from spillway.backends.protocol import Connection
    from spillway.backends.slurm.options import SlurmOptions
    from spillway.backends.slurm.parse import JobRow

API_VERSION: Final = "v0.0.38"
TIMEOUT_SECONDS: Final = 8.0

NO_SUCH_JOB: Final = 67_108_863
"""Slurm's largest number for a job, which no cluster gets to: a harmless question."""

_UNSPECIFIED: Final = -1
_ZERO_BYTES: Final = 5005
_JOB_IS_OVER: Final = frozenset({2017, 2021})
_NOTHING_FOUND: Final = frozenset({9003})
"""How slurmrestd 22.05 says that accounting has no such job; a later one answers with an empty list."""
_CLIENT_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.CookieConflict,
    httpx.StreamError,
)


class RestClient:
    """One cluster, through its REST API.

    The connection's host is a URL, its login the user of the cluster, its password that user's token; its `extra` may
    have `api_version`, and `ca_file` with the authorities to believe.
    """

    def __init__(
        self,
        connection: Connection,
        options: SlurmOptions,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._options = options
        self._connection = connection
        self._version = str(connection.extra.get("api_version") or API_VERSION)
        self._version_number = _number_of(self._version)
        self._has_accounting = True
        self._http = _http_client(connection, transport)

    def submit(self, request: JobRequest) -> int:
        """Hand the job in, and return Slurm's number of it."""
        path = f"/slurm/{self._version}/job/submit"
        body = rest_request(request, version=self._version_number)
        answer = self._call("POST", path, body, otherwise=RejectedError)
        with failures.readable("slurmrestd"):
            return int(answer["job_id"])

    def jobs(self) -> Sequence[JobRow]:
        """Return every job of the cluster that the controller remembers: the API does not ask for one user's."""
        with failures.readable("slurmrestd"):
            return parse.rest_rows(self._get("jobs"))

    def comments(self) -> Mapping[int, str]:
        """Return the comments of those jobs, by Slurm's number."""
        with failures.readable("slurmrestd"):
            return parse.rest_comments(self._get("jobs"))

    def past_jobs(self, names: Sequence[str]) -> Sequence[JobRow]:
        """Return what accounting knows of jobs of these names."""
        if not self._has_accounting:
            return []
        listed = quote(",".join(names), safe="")  # slurmrestd 22.05 takes no comma as it is
        asked = f"/slurmdb/{self._version}/jobs?job_name={listed}"
        try:
            answer = self._call("GET", asked, ignored=_NOTHING_FOUND)
        except RejectedError:  # this slurmrestd has no accounting behind it
            self._has_accounting = False
            return []
        wanted = set(names)
        with failures.readable("slurmrestd"):
            return [row for row in parse.rest_account_rows(answer) if row.name in wanted]

    def marks(self, names: Sequence[str]) -> Mapping[str, Marks]:
        """Return what jobs of these names left in the shared folder, where this machine sees it."""
        return {name: mark for name in names if (mark := self._mark(name)) is not None}

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Cancel the jobs, one call each: the API knows no other way."""
        for job_id in job_ids:
            self._call("DELETE", f"/slurm/{self._version}/job/{job_id}", ignored=_JOB_IS_OVER)

    def nodes(self) -> Sequence[NodeRoom]:
        """Return what the partition's nodes have to give."""
        with failures.readable("slurmrestd"):
            return rest_nodes(self._get("nodes"), self._options.partition)

    def reservation_end(self, name: str) -> datetime:
        """Return when the reservation ends."""
        path = f"/slurm/{self._version}/reservation/{quote(name, safe='')}"
        answer = self._call("GET", path, otherwise=RejectedError)
        with failures.readable("slurmrestd"):
            return parse.rest_end(answer)

    def clock_ahead(self) -> timedelta:
        """Return how far the controller's clock is ahead of ours."""
        with failures.readable("slurmrestd"):
            said = parse.fields_of(self._get("diag").get("statistics")).get("req_time")
            there = datetime.fromtimestamp(parse.number(said), UTC)
        return difference(there, datetime.now(UTC))

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes of the file from `offset` on; none when it cannot be seen from here."""
        folder = self._options.folder_here
        if folder is None:
            return b""
        try:
            with (Path(folder) / Path(path).name).open("rb") as file:
                file.seek(offset)
                return file.read(limit)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise TransientError(
                f"cannot read {path} in {folder}: {error}", backend=NAME
            ) from error

    def _mark(self, name: str) -> Marks | None:
        began = self.read(f"{name}.began", 0, 40).strip()
        if not began:
            return None
        code = self.read(f"{name}.exit", 0, 40).strip()
        return Marks(job_id=int(began), exit_code=int(code) if code else None)

    def _get(self, what: str) -> dict[str, Any]:
        return self._call("GET", f"/slurm/{self._version}/{what}")

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        otherwise: type[BackendError] = TransientError,
        ignored: frozenset[int] = frozenset(),
    ) -> dict[str, Any]:
        answer = self._request(method, path, body)
        content = _json(answer)
        errors = [] if content is None else _errors(content)
        if answer.is_success and not errors and content is not None:
            return content
        if errors and {code for code, _ in errors} <= ignored:
            return {}
        raise self._explain(answer, errors, otherwise)

    def _request(self, method: str, path: str, body: object = None) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body)
        except _CLIENT_ERRORS as error:
            raise TransientError(
                f"slurmrestd at {self._connection.host} did not answer: {str(error) or type(error).__name__}; {LATER}",
                backend=NAME,
            ) from error

    def _explain(
        self,
        answer: httpx.Response,
        errors: list[tuple[int, str]],
        otherwise: type[BackendError],
    ) -> BackendError:
        said = " ".join(answer.text.split())[:300]
        match answer.status_code:
            case 401 | 403:
                return self._not_believed("it does not accept the token")
            case 404:
                return RejectedError(
                    f"slurmrestd at {self._connection.host} does not offer {self._version} of its API; set api_version in"
                    f" the connection's extra to one that it has: {said}",
                    backend=NAME,
                )
            case 429 | 502 | 503 | 504:
                return TransientError(
                    f"slurmrestd answers {answer.status_code}; {LATER}",
                    backend=NAME,
                    retry_after=retry_after(answer.headers.get("Retry-After")),
                )
            case status if not errors:
                return otherwise(f"slurmrestd answers {status}: {said}", backend=NAME)
            case _:
                return self._explain_error(*errors[0], otherwise)

    def _explain_error(self, code: int, text: str, otherwise: type[BackendError]) -> BackendError:
        if code not in {_UNSPECIFIED, _ZERO_BYTES}:
            return failures.by_number(code, text, otherwise=otherwise)
        if self._is_believed() is False:
            return self._not_believed(f"it says only: {text}")
        return TransientError(f"Slurm says: {text}; {LATER}", backend=NAME)

    def _is_believed(self) -> bool | None:
        """Return whether the controller accepts the token; None when it cannot be told.

        To most questions slurmrestd answers "unspecified error" both for a wrong token and for a controller that is
        down. Cancelling a job tells: its error is passed on as the controller gave it.
        """
        if _has_expired(self._connection.password):
            return False
        try:
            answer = self._request("DELETE", f"/slurm/{self._version}/job/{NO_SUCH_JOB}")
        except TransientError:
            return None
        codes = {code for code, _ in _errors(_json(answer) or {})}
        return _ZERO_BYTES not in codes and answer.status_code not in {401, 403}

    def _not_believed(self, why: str) -> AccessError:
        state = "has expired" if _has_expired(self._connection.password) else "is not accepted"
        return AccessError(
            f"the token of {self._connection.login} {state} by slurmrestd at {self._connection.host} ({why}); renew it in"
            " the pool's connection: `scontrol token lifespan=...`",
            backend=NAME,
        )


def is_url(host: str) -> bool:
    """Return whether a connection's host names a slurmrestd."""
    return re.match(r"https?://", host) is not None


def _number_of(version: str) -> int:
    match = re.fullmatch(r"v0\.0\.(\d+)", version)
    if match is None:
        raise SpecError(f"api_version {version!r} of the connection is none: write `v0.0.42`")
    return int(match[1])


def _http_client(connection: Connection, transport: httpx.BaseTransport | None) -> httpx.Client:
    if not connection.login or not connection.password:
        raise SpecError(
            f"the connection to slurmrestd at {connection.host} needs a login, the cluster's user, and a password, its token"
        )
    ca_file = connection.extra.get("ca_file")
    try:
        url = httpx.URL(str(connection.host).rstrip("/"))
        if connection.port is not None:
            url = url.copy_with(port=connection.port)
        return httpx.Client(
            base_url=url,
            headers={
                "X-SLURM-USER-NAME": connection.login,
                "X-SLURM-USER-TOKEN": connection.password,
            },
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(
                max_keepalive_connections=0
            ),  # calls are rare, and nobody closes a backend
            verify=_authorities(str(ca_file)) if ca_file else True,
            transport=transport,
        )
    except httpx.InvalidURL as error:
        raise SpecError(f"{connection.host} is no URL of a slurmrestd: {error}") from error


def _authorities(ca_file: str) -> Any:
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise SpecError(f"cannot read the ca_file {ca_file} of the connection: {error}") from error


def _json(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        content = answer.json()
    except ValueError:
        return None
    return cast("dict[str, Any]", content) if isinstance(content, dict) else None


def _errors(content: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return number and text of each error; versions name the number differently."""
    return [
        (
            int(error.get("error_number") or error.get("error_code") or 0),
            str(error.get("description") or error.get("error") or ""),
        )
        for error in map(parse.fields_of, parse.items_of(content.get("errors")))
    ]


def _has_expired(token: str | None) -> bool:
    """Return whether the token says itself that it is over; one that says nothing has not."""
    try:
        middle = (token or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return float(claims["exp"]) < time.time()
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return False
