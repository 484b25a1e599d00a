"""One namespace of a real API server, for our controllers and kubelet where the cluster has none: what `FakeApiServer` is to them.

Pods run as processes of this machine, whatever image they name. An API server on this machine asks us for their output, as
it asks any kubelet.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack, contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from spillway.testing.certificates import Certificate
from spillway.testing.http_server import QuietHandler, serving
from spillway.testing.kubernetes_cluster import FakeCluster
from spillway.testing.kubernetes_objects import KINDS, Object, lines_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STEP_SECONDS: Final = 0.2
_MERGE: Final = "application/strategic-merge-patch+json"


class RemoteServer:
    """The objects of one namespace, as controllers use them; looked at anew at each step.

    Attributes:
        logs: What our pods printed, each line with its time.
        node: The node that pods are bound to.
    """

    troubles = (ApiException, HTTPError)
    """What a step may meet: somebody was faster, or the server is busy. The next step looks again."""

    def __init__(self, client: Any, namespace: str, *, concerns: Callable[[Object], bool]) -> None:
        """Use `namespace` through `client`, of whose jobs and pods only those that it `concerns` are seen."""
        self.lock = RLock()
        self.logs: dict[str, bytearray] = {}
        self.node: Object = {}
        self._client = client
        self._namespace = namespace
        self._concerns = concerns
        self._seen: dict[str, list[Object]] = {}

    def look_anew(self) -> None:
        """Forget what was seen."""
        self._seen.clear()

    def all(self, plural: str) -> list[Object]:
        """Return all objects of the kind, as they were when this step first asked for them."""
        if plural == "nodes":
            return [self.node]
        if plural not in self._seen:
            found = self._call("GET", self._path(plural)).get("items") or []
            said = {"kind": KINDS[plural][1], "apiVersion": _version_of(plural)}
            self._seen[plural] = [{**one, **said} for one in found if self._concerns(one)]
        return copy.deepcopy(self._seen[plural])

    def one(self, plural: str, name: str, namespace: str = "") -> Object | None:  # noqa: ARG002
        """Return the object, or None."""
        try:
            return self._call("GET", self._path(plural, name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def add(self, plural: str, made: Object, namespace: str = "") -> Object:  # noqa: ARG002
        """Make an object."""
        return self._call("POST", self._path(plural), made)

    def update(
        self,
        plural: str,
        name: str,
        change: Callable[[Object], object],
        *,
        namespace: str = "",
        manager: str = "",
    ) -> None:
        """Change the object, if there is one: its status, and for a pod its node."""
        del namespace, manager
        there = self.one(plural, name)
        if there is None:
            return
        before = copy.deepcopy(there)
        change(there)
        node = there["spec"].get("nodeName")
        if node != before["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}}
            self._call("POST", f"{self._path(plural, name)}/binding", {**body, "target": target})
        if there.get("status") != before.get("status"):
            path = f"{self._path(plural, name)}/status"
            self._call("PATCH", path, {"status": there["status"]}, kind=_MERGE)

    def remove(self, plural: str, name: str, namespace: str = "") -> None:
        """Have the object be gone at once."""
        self.delete(plural, name, namespace, grace=0)

    def delete(
        self,
        plural: str,
        name: str,
        namespace: str = "",  # noqa: ARG002
        grace: float | None = None,
    ) -> None:
        """Delete the object, with its own grace period unless another is given."""
        body = {} if grace is None else {"gracePeriodSeconds": int(grace)}
        self._call("DELETE", self._path(plural, name), body)

    def _path(self, plural: str, name: str = "") -> str:
        path = f"{KINDS[plural][0]}/namespaces/{self._namespace}/{plural}"
        return f"{path}/{name}" if name else path

    def _call(
        self, method: str, path: str, body: Object | None = None, *, kind: str = "application/json"
    ) -> Object:
        answer: Object = self._client.call_api(
            path,
            method,
            header_params={"Accept": "application/json", "Content-Type": kind},
            body=body,
            response_types_map=dict.fromkeys((200, 201, 202), "object"),
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=(3, 10),
        )
        return answer


@contextmanager
def own_kubelet(
    client: Any,
    namespace: str,
    folder: Path,
    *,
    node: str,
    concerns: Callable[[Object], bool],
    controls_jobs: bool,
) -> Iterator[None]:
    """Run the pods of `namespace` on this machine, as a node called `node`, until the block ends.

    Args:
        client: A `kubernetes.client.ApiClient` that may do so.
        namespace: Whose pods.
        folder: Where containers begin.
        node: A name that no node has.
        concerns: Whether to have a hand in a job or pod.
        controls_jobs: Whether to make the pods of Jobs too, where the cluster has no controllers.
    """
    server = RemoteServer(client, namespace, concerns=concerns)
    controllers = frozenset({"jobs"} if controls_jobs else ())
    cluster = FakeCluster(server, folder, controllers=controllers, step_seconds=STEP_SECONDS)
    with ExitStack() as stack:
        port = stack.enter_context(_output_server(server, folder))
        server.node = _node(node, port)
        nodes = "/api/v1/nodes"
        server._call("POST", nodes, server.node)  # noqa: SLF001  # of this module
        stack.callback(server._call, "DELETE", f"{nodes}/{node}")  # noqa: SLF001
        status = {"status": server.node["status"]}
        server._call("PATCH", f"{nodes}/{node}/status", status, kind=_MERGE)  # noqa: SLF001
        stack.callback(cluster.stop)
        cluster.start()
        yield


def _node(name: str, port: int) -> Object:
    addresses = [{"type": kind, "address": "127.0.0.1"} for kind in ("InternalIP", "Hostname")]
    return {
        "metadata": {"name": name, "labels": {"spillway/node": "tests"}},
        "spec": {"unschedulable": True},  # for others
        "status": {
            "addresses": addresses,
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Tests"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        },
    }


@contextmanager
def _output_server(server: RemoteServer, folder: Path) -> Iterator[int]:
    """Serve the output of pods as a kubelet does; yield the port."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name is http.server's
            parts = urlsplit(self.path)
            words = parts.path.strip("/").split("/")
            with server.lock:
                output = bytes(server.logs.get(words[2], b"")) if len(words) == 4 else b""
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            data = lines_since(output, query)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with serving(Handler, Certificate(folder).context()) as url:
        yield int(url.rpartition(":")[2])


def _version_of(plural: str) -> str:
    return KINDS[plural][0].removeprefix("/apis/").removeprefix("/api/")
