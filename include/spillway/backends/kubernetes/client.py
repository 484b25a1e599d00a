"""The API server as one namespace of it: a few calls on plain JSON, through the client that Airflow's hook made."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from spillway.backends.kubernetes.failures import CLIENT_ERRORS, MissingError, by_status, explain
from spillway.backends.kubernetes.naming import MANAGER
from spillway.backends.skew import clock_ahead
from spillway.errors import AccessError, RejectedError, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from spillway.backends.kubernetes.kinds import Kind
    from spillway.backends.kubernetes.manifests import Manifest
    from spillway.backends.kubernetes.options import KubernetesOptions
    from spillway.backends.protocol import Connection

CONNECT_SECONDS: Final = 3.0
READ_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 60
"""How long one watch lasts before it is asked for again."""


class ApiClient(Protocol):
    """What is used of `kubernetes.client.ApiClient`."""

    def call_api(self, resource_path: str, method: str, **arguments: Any) -> Any:
        """Make a request, with the connection's credentials."""
        ...


class Client:
    """One namespace of a cluster. Failures are `BackendError`; nothing is cached.

    Attributes:
        ahead: How far the server's clock is ahead of ours, as its last answer had it; zero for a few seconds, which may be
            the way.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self.namespace = namespace
        self.ahead = timedelta(0)

    def get(self, kind: Kind, name: str) -> Manifest | None:
        """Return the object, or None when there is none."""
        try:
            return self._json("GET", kind.path(self.namespace, name), f"get {kind.plural}")
        except MissingError:
            return None

    def list_all(self, kind: Kind, **query: str) -> tuple[list[Manifest], str]:
        """Return the namespace's objects that fit, and the version of the whole that this is.

        Raises:
            MissingError: The cluster does not know the kind; says what to install.
        """
        action = f"list {kind.plural} in {self.namespace}"
        if kind.needs:
            action += f" ({kind.plural} come with {kind.needs})"
        return self._list(kind.path(self.namespace), action, query)

    def list_of_cluster(self, path: str, **query: str) -> Iterable[Manifest]:
        """Return the objects of a collection of the whole cluster."""
        items, _ = self._list(path, f"list {path.rpartition('/')[2]} of the whole cluster", query)
        return items

    def minor_version(self) -> int | None:
        """Return 30 of Kubernetes 1.30; None where the server does not say.

        Raises:
            TransientError: It could not be asked.
        """
        try:
            said = re.match(r"\d+", str(self._json("GET", "/version", "get /version").get("minor")))
        except (AccessError, RejectedError):  # not for us, though everybody else may
            return None
        return int(said[0]) if said else None

    def get_of_cluster(self, path: str) -> Manifest:
        """Return an object by its whole path."""
        return self._json("GET", path, f"get {path}")

    def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Have the object be as it is said here, whether it is there or not, and return it.

        Raises:
            ConflictError: Somebody else has changed a field of it since.
        """
        name = manifest["metadata"]["name"]
        return self._json(
            "PATCH",
            kind.path(self.namespace, name),
            f"patch {kind.plural} in {self.namespace}",
            query={"fieldManager": MANAGER, "fieldValidation": "Strict"},
            body=manifest,
            content_type="application/apply-patch+yaml",
        )

    def delete(self, kind: Kind, name: str) -> None:
        """Have the object go, and then what it owns; one that is not there is no error."""
        try:
            self._json(
                "DELETE",
                kind.path(self.namespace, name),
                f"delete {kind.plural} in {self.namespace}",
                body={"propagationPolicy": "Background"},
            )
        except MissingError:
            return

    def read_log(self, pod: str, **query: str) -> bytes:
        """Return the container's output, or nothing while there is none."""
        path = f"{self._pods()}/{pod}/log"
        action = f"get pods/log in {self.namespace}"
        try:
            answer = self._call("GET", path, query, preload=False)
            try:
                return cast("bytes", answer.read())
            finally:
                answer.release_conn()
        except CLIENT_ERRORS as error:
            problem = explain(error, action)
            if isinstance(problem, MissingError) or "is waiting to start" in str(problem):
                return b""
            raise problem from error

    def watch(self, kind: Kind, version: str, **query: str) -> Iterator[Manifest]:
        """Yield what changes after `version`, for about a minute: `{"type": ..., "object": ...}`.

        Raises:
            GoneError: The server has forgotten what happened after `version`.
        """
        action = f"watch {kind.plural} in {self.namespace}"
        asked = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        try:
            path = kind.path(self.namespace)
            answer = self._call("GET", path, asked, preload=False, read_seconds=WATCH_SECONDS + 15)
            try:
                for line in _lines(answer):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        said = event["object"]
                        raise by_status(int(said.get("code") or 500), said, action)
                    yield event
            finally:
                answer.close()
        except CLIENT_ERRORS as error:
            raise explain(error, action) from error

    def _pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def _list(self, path: str, action: str, query: Mapping[str, str]) -> tuple[list[Manifest], str]:
        answer = self._json("GET", path, action, query=query)
        return list(answer.get("items") or ()), str(answer["metadata"]["resourceVersion"])

    def _json(
        self,
        method: str,
        path: str,
        action: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        try:
            answer = self._call(method, path, query or {}, body=body, content_type=content_type)
        except CLIENT_ERRORS as error:
            raise explain(error, action) from error
        if not isinstance(answer, dict):
            raise explain(ValueError(f"it answers {str(answer)[:200]!r}, not JSON"), action)
        return cast("Manifest", answer)

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Manifest | None = None,
        content_type: str = "application/json",
        preload: bool = True,
        read_seconds: float = READ_SECONDS,
    ) -> Any:
        answer = self._client.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            response_types_map=dict.fromkeys((200, 201, 202), "object"),
            auth_settings=["BearerToken"],
            _preload_content=preload,
            _return_http_data_only=False,
            _request_timeout=(CONNECT_SECONDS, read_seconds),
        )
        if not preload:
            return answer
        content, _, headers = answer
        self.ahead = clock_ahead(headers.get("Date"), datetime.now(UTC))
        return content


def client_of(connection: Connection | None, options: KubernetesOptions, *, pool: str) -> Client:
    """Return the pool's namespace, as its connection reaches it.

    Raises:
        SpecError: The pool names no connection that has a client of Kubernetes, or of its cluster's cloud.
    """
    namespace = str(options.namespace)
    if options.eks is not None:
        from spillway.backends.kubernetes.eks import eks_cluster  # it needs boto3

        return Client(eks_cluster(pool, options.eks, connection), namespace)
    if options.gke is not None:
        from spillway.backends.kubernetes.gke import gke_cluster  # it needs Google's libraries

        return Client(gke_cluster(pool, options.gke, connection), namespace)
    client = connection.client if connection is not None else None
    if not hasattr(client, "call_api"):
        raise SpecError(
            f"pool {pool!r} needs `connection:`, the name of an Airflow connection of the type kubernetes;"
            " with the option eks of the type aws, and with gke of google_cloud_platform"
        )
    return Client(cast("ApiClient", client), namespace)


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    for piece in answer.stream(amt=None, decode_content=True):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line)
