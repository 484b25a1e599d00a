"""The calls to Cloud TPU that the backend makes, over REST; the only place that talks to it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from google.api_core import exceptions
from google.api_core.exceptions import AlreadyExists, Conflict, NotFound
from google.auth.credentials import AnonymousCredentials
from google.auth.transport import requests

from spillway.backends.google import naming
from spillway.backends.google.access import TIMEOUT_SECONDS, Access
from spillway.backends.google.failures import translated
from spillway.backends.google.tpu import parse
from spillway.backends.google.tpu.render import NAME, NAMESPACE, queued_resource
from spillway.backends.skew import clock_ahead
from spillway.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Generator

    from spillway.backends.google.tpu.options import TpuOptions
    from spillway.backends.google.tpu.parse import TpuRow
    from spillway.model import Submission

_SERVICE: Final = "Cloud TPU"
_PAGE: Final = 1000


class TpuClient:
    """Queued resources of one project and zone. Failures are `BackendError`.

    Attributes:
        ahead: How far Google's clock is ahead of ours, as its last answer had it; zero for a few seconds.
    """

    def __init__(self, access: Access, options: TpuOptions) -> None:
        endpoint = options.endpoint or "tpu.googleapis.com"
        is_open = endpoint.startswith("http://")  # an emulator's; credentials do not travel there
        self.ahead = timedelta(0)
        self._options = options
        self._base = endpoint if "://" in endpoint else f"https://{endpoint}"
        self._parent = f"projects/{access.project}/locations/{options.zone}"
        credentials: Any = AnonymousCredentials
        library: Any = requests  # it has no types
        self._http = library.AuthorizedSession(credentials() if is_open else access.credentials)

    def create(self, submission: Submission, *, spot: bool) -> None:
        """Ask for TPUs and have them run the job; a queued resource of that name that is there already is left as it is."""
        body = queued_resource(submission, self._options, self._parent, spot=spot)
        pool, key = submission.pool, submission.key
        query = {
            "queuedResourceId": naming.job_id(pool, key),
            "requestId": naming.request_id(pool, key),
        }
        with translated(NAME, _SERVICE, key):
            try:
                version = "v2alpha1" if self._options.provisioning else "v2"
                path = f"{self._parent}/queuedResources"
                self._call("POST", path, query, body, version=version)
            except AlreadyExists:
                return
            except Conflict as error:  # what REST makes of it
                if type(error) is not Conflict:
                    raise

    def rows(self, pool: str) -> list[TpuRow]:
        """Return the queued resources of the pool, out of all of the zone: the API does not ask for fewer."""
        rows: list[TpuRow] = []
        token = ""
        while True:
            with translated(NAME, _SERVICE), _readable():
                query = {"pageSize": str(_PAGE), "pageToken": token}
                answer = self._call("GET", f"{self._parent}/queuedResources", query)
                found = answer.get("queuedResources", [])
                rows += [parse.tpu_row(one) for one in found if _is_of(pool, one)]
            token = str(answer.get("nextPageToken", ""))
            if not token:
                return rows

    def get(self, name: str) -> TpuRow | None:
        """Return the queued resource; None when there is none of this name."""
        with translated(NAME, _SERVICE), _readable():
            try:
                return parse.tpu_row(self._call("GET", f"{self._parent}/queuedResources/{name}"))
            except NotFound:
                return None

    def exit_codes(self, name: str) -> tuple[int, ...]:
        """Return the exit codes that the hosts have left; none while they run, or when there is no such TPU any more."""
        path = f"{self._parent}/nodes/{name}:getGuestAttributes"
        with translated(NAME, _SERVICE), _readable():
            try:
                return parse.exit_codes(
                    self._call("POST", path, body={"queryPath": f"{NAMESPACE}/"})
                )
            except NotFound:
                return ()

    def delete(self, name: str) -> None:
        """Delete the queued resource and its TPU; one that is not there, or being deleted, is no error."""
        with translated(NAME, _SERVICE):
            try:
                self._call("DELETE", f"{self._parent}/queuedResources/{name}", {"force": "true"})
            except NotFound:
                return

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: object = None,
        *,
        version: str = "v2",
    ) -> dict[str, Any]:
        url = f"{self._base}/{version}/{path}"
        answer = self._http.request(method, url, params=query, json=body, timeout=TIMEOUT_SECONDS)
        if not answer.ok:
            library: Any = exceptions  # it has no types
            raise library.from_http_response(answer)
        self.ahead = clock_ahead(answer.headers.get("Date"), datetime.now(UTC))
        content: dict[str, Any] = answer.json()
        return content


def _is_of(pool: str, resource: dict[str, Any]) -> bool:
    name = str(resource.get("name", "")).rpartition("/")[2]
    return name.startswith(naming.pool_prefix(pool))


@contextmanager
def _readable() -> Generator[None]:
    """Make of an answer that is not what was asked for a `TransientError`: it says nothing of any job."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as error:
        raise TransientError(
            f"the answer of {_SERVICE} cannot be read: {error!r}", backend=NAME
        ) from error
