"""An API server of Kubernetes of one's own, in memory: what the backend uses of it, right under race.

Objects with uid and resourceVersion, which a write may name, server-side apply with owners of fields, validation, selectors,
watches with bookmarks and a history that can be forgotten, deletion in the background, evictions, permissions. Written from "Kubernetes API
Concepts", "Server-Side Apply" and "API conventions" of the Kubernetes documentation. What makes pods of jobs, and runs
them, is in `kubernetes_cluster.py`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from email.utils import format_datetime
from http import HTTPStatus
from threading import Condition, RLock
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from spillway.testing import kubernetes_objects
from spillway.testing.http_server import QuietHandler, serving
from spillway.testing.kubernetes_objects import (
    KINDS,
    OF_THE_CLUSTER,
    Object,
    Refusal,
    Request,
    check_version,
    copied,
    fits,
    leaves,
    lines_since,
    merge,
    owner_of,
    set_condition,
    stamp,
    validate,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

BOOKMARK_SECONDS: Final = 0.5


class FakeApiServer:
    """The objects, and what the API does to them. One at a time, under `lock`, which may be taken again.

    Attributes:
        allowed: Which verbs on which resources each token may; None for all.
        needed: Which of them each token was asked for until now.
        authenticate: Makes of a token that was sent the one that `allowed` knows.
        refuse: Asked before each request; what it returns is the answer instead.
        minor: Which Kubernetes 1 it is.
        logs: What pods printed, each line with its time; by the pod's name.
    """

    def __init__(self, *, token: str, namespaces: frozenset[str] = frozenset({"default"})) -> None:
        self.lock = RLock()
        self.news = Condition(self.lock)
        self.namespaces = namespaces
        self.allowed: dict[str, frozenset[tuple[str, str]] | None] = {token: None}
        self.needed: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self.authenticate: Callable[[str], str] = str
        self.refuse: Callable[[Request], Refusal | None] = lambda _: None
        self.requests: list[Request] = []
        self.minor = 34
        self.logs: dict[str, bytearray] = {}
        self.stopped = False
        self._objects: defaultdict[str, dict[tuple[str, str], Object]] = defaultdict(dict)
        self._owners: dict[str, dict[str, str]] = {}
        self._history: list[tuple[int, str, str, Object]] = []
        self._version = 100
        self._forgotten = 0

    # ---- what controllers use -------------------------------------------------------------------------------------

    troubles: tuple[type[Exception], ...] = ()

    def look_anew(self) -> None:
        """Do nothing: nothing is remembered."""

    def all(self, plural: str) -> list[Object]:
        """Return copies of all objects of the kind, the oldest first."""
        with self.lock:
            return copied(list(self._objects[plural].values()))

    def one(self, plural: str, name: str, namespace: str = "default") -> Object | None:
        """Return a copy of the object, or None."""
        with self.lock:
            return copied(self._objects[plural].get((namespace, name)))

    def add(self, plural: str, made: Object, namespace: str = "default") -> Object:
        """Put an object there, as a controller or an administrator does."""
        with self.lock:
            namespace = "" if plural in OF_THE_CLUSTER else namespace
            made = copied(made)
            made.setdefault("kind", KINDS[plural][1])
            made.setdefault(
                "apiVersion", KINDS[plural][0].removeprefix("/apis/").removeprefix("/api/")
            )
            metadata = made["metadata"]
            metadata.update(uid=str(uuid.uuid4()), creationTimestamp=stamp(), namespace=namespace)
            self._objects[plural][namespace, metadata["name"]] = made
            return self._changed(plural, "ADDED", made)

    def update(
        self,
        plural: str,
        name: str,
        change: Callable[[Object], object],
        *,
        namespace: str = "default",
        manager: str = "",
    ) -> None:
        """Change the object, if there is one; what becomes different of it belongs to `manager` then, if one is named."""
        with self.lock:
            there = self._objects[plural].get((namespace, name))
            if there is None:
                return
            before = copied(there)
            change(there)
            if there != before:
                owners = self._owners.setdefault(there["metadata"]["uid"], {})
                if manager:
                    old = leaves(before)
                    owners |= {
                        path: manager
                        for path, value in leaves(there).items()
                        if old.get(path) != value
                    }
                self._changed(plural, "MODIFIED", there)

    def remove(self, plural: str, name: str, namespace: str = "default") -> None:
        """Take the object away, and in the background what it owns."""
        with self.lock:
            there = self._objects[plural].pop((namespace, name), None)
            if there is None:
                return
            self._changed(plural, "DELETED", there)
            for kind in ("jobs", "pods", "services"):
                for other in self.all(kind):
                    if owner_of(other) == there["metadata"]["uid"]:
                        self.delete(kind, other["metadata"]["name"], namespace)

    def delete(
        self, plural: str, name: str, namespace: str = "default", grace: float | None = None
    ) -> None:
        """Delete the object; a pod goes when its kubelet has ended it."""
        with self.lock:
            if plural != "pods":
                self.remove(plural, name, namespace)
                return

            def mark(pod: Object) -> None:
                seconds = (
                    pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
                )
                if "deletionTimestamp" not in pod["metadata"]:
                    pod["metadata"]["deletionTimestamp"] = stamp(seconds)
                    pod["metadata"]["deletionGracePeriodSeconds"] = seconds

            self.update("pods", name, mark, namespace=namespace)

    def forget_history(self) -> None:
        """Forget what happened until now, as etcd does every few minutes."""
        with self.lock:
            self._forgotten = self._version = self._version + 1
            self._history.clear()

    # ---- what clients use -----------------------------------------------------------------------------------------

    def answer(self, request: Request) -> tuple[int, Object]:
        """Do what is asked, and return status and body.

        Raises:
            Refusal: It cannot be done.
        """
        with self.lock:
            self.admit(request)
            if request.part == "eviction":
                return self._evict(request)
            if request.part == "binding":
                return self._bind(request)
            if not request.name:
                act = {"POST": self._create, "DELETE": self._delete_all}
                return act.get(request.method, self._list)(request)
            there = self._objects[request.plural].get((request.namespace, request.name))
            if there is not None:
                check_version(request, there)
            if request.method == "PATCH" and request.part != "status":
                return self._apply(request, there)
            if there is None:
                raise _not_found(request)
            if request.part == "status" and request.method == "PATCH":
                merged = merge(there.get("status") or {}, request.body["status"])
                self.update(
                    request.plural,
                    request.name,
                    lambda one: one.update(status=merged),
                    namespace=request.namespace,
                )
            if request.method == "DELETE":
                said = request.query.get("gracePeriodSeconds")
                grace = request.body.get("gracePeriodSeconds", None if said is None else int(said))
                if grace == 0:
                    self.remove(request.plural, request.name, request.namespace)
                else:
                    self.delete(request.plural, request.name, request.namespace, grace)
                return HTTPStatus.OK, {"kind": "Status", "status": "Success"}
            return HTTPStatus.OK, copied(there)

    def admit(self, request: Request) -> None:
        """Check who asks, and whether they may.

        Raises:
            Refusal: They may not.
        """
        self.requests.append(request)
        if self.authenticate(request.token) not in self.allowed:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        self._authorize(request, request.verb)
        refusal = self.refuse(request)
        if refusal is not None:
            raise refusal

    def _authorize(self, request: Request, verb: str) -> None:
        token, right = self.authenticate(request.token), (verb, request.resource)
        self.needed[token].add(right)
        allowed = self.allowed[token]
        if allowed is not None and right not in allowed:
            prefix = KINDS[request.plural][0]
            group = prefix.split("/")[2] if "apis" in prefix else ""
            raise Refusal(
                403,
                "Forbidden",
                f'{request.plural} is forbidden: User "robot" cannot {verb} resource "{request.resource}" in API'
                f' group "{group}" in the namespace "{request.namespace}"',
            )

    def read_log(self, request: Request) -> bytes:
        """Return what the pod printed, from `sinceTime` on."""
        with self.lock:
            self.admit(request)
            pod = self._objects["pods"].get((request.namespace, request.name))
            if pod is None:
                raise _not_found(request)
            if request.name not in self.logs:
                raise Refusal(
                    400,
                    "BadRequest",
                    f'container "main" in pod "{request.name}" is waiting to start: ContainerCreating',
                )
            return lines_since(bytes(self.logs[request.name]), request.query)

    def watch(self, request: Request) -> Iterator[Object]:
        """Yield what happens after the version that was asked for, until the time that was asked for."""
        with self.lock:
            self.admit(request)
            after = int(request.query["resourceVersion"])
        deadline = time.monotonic() + float(request.query.get("timeoutSeconds", 60))
        told = time.monotonic()
        while time.monotonic() < deadline and not self.stopped:
            with self.news:
                if after < self._forgotten:
                    gone = Refusal(410, "Expired", f"too old resource version: {after}")
                    yield {"type": "ERROR", "object": gone.body}
                    return
                events = [
                    {"type": kind, "object": seen}
                    for version, plural, kind, seen in self._history
                    if version > after and plural == request.plural and fits(seen, request)
                ]
                after = self._version
                if not events and time.monotonic() - told > BOOKMARK_SECONDS:
                    metadata = {"resourceVersion": str(after)}
                    events = [{"type": "BOOKMARK", "object": {"metadata": metadata}}]
                if not events:
                    self.news.wait(0.1)
                    continue
            told = time.monotonic()
            yield from events

    def _create(self, request: Request) -> tuple[int, Object]:
        name = request.body["metadata"]["name"]
        if (request.namespace, name) in self._objects[request.plural]:
            raise Refusal(409, "AlreadyExists", f'{request.plural} "{name}" already exists')
        if KINDS[request.plural][2] is not None:
            validate(replace(request, name=name), request.body, minor=self.minor)
        if request.plural == "pods":
            request.body.setdefault("status", {"phase": "Pending"})
        return HTTPStatus.CREATED, self.add(request.plural, request.body, request.namespace)

    def _delete_all(self, request: Request) -> tuple[int, Object]:
        for there in self.all(request.plural):
            if fits(there, request):
                metadata = there["metadata"]
                self.delete(request.plural, metadata["name"], metadata["namespace"])
        return HTTPStatus.OK, {"kind": "Status", "status": "Success"}

    def _list(self, request: Request) -> tuple[int, Object]:
        items = [
            # A list says once what its items are.
            {
                name: value
                for name, value in copied(item).items()
                if name not in {"kind", "apiVersion"}
            }
            for item in self._objects[request.plural].values()
            if fits(item, request)
        ]
        return HTTPStatus.OK, {
            "kind": f"{KINDS[request.plural][1]}List",
            "metadata": {"resourceVersion": str(self._version)},
            "items": items,
        }

    def _apply(self, request: Request, there: Object | None) -> tuple[int, Object]:
        body, manager = request.body, request.query["fieldManager"]
        if request.namespace not in self.namespaces:
            raise Refusal(404, "NotFound", f'namespaces "{request.namespace}" not found')
        validate(request, body, minor=self.minor)
        fields = {
            path: value for path, value in leaves(body).items() if path != "metadata.namespace"
        }
        if there is None:
            self._authorize(request, "create")
            made = self.add(request.plural, body, request.namespace)
            self._owners[made["metadata"]["uid"]] = dict.fromkeys(fields, manager)
            return HTTPStatus.CREATED, made
        owners, has = self._owners.setdefault(there["metadata"]["uid"], {}), leaves(there)
        conflicts = sorted(
            path
            for path, value in fields.items()
            if has.get(path) != value and owners.get(path, manager) != manager
        )
        if conflicts and request.query.get("force") != "true":
            said = ", ".join(f'conflict with "{owners[path]}": .{path}' for path in conflicts)
            raise Refusal(
                409, "Conflict", f"Apply failed with {len(conflicts)} conflict(s): {said}"
            )
        merged = merge(there, body)
        if request.plural == "jobs" and merged["spec"]["template"] != there["spec"]["template"]:
            raise Refusal(
                422,
                "Invalid",
                f'Job.batch "{request.name}" is invalid: spec.template: field is immutable',
            )
        self.update(
            request.plural,
            request.name,
            lambda one: one.update(merged),
            namespace=request.namespace,
        )
        owners |= dict.fromkeys(fields, manager)
        return HTTPStatus.OK, copied(self._objects[request.plural][request.namespace, request.name])

    def _evict(self, request: Request) -> tuple[int, Object]:
        if (request.namespace, request.name) not in self._objects["pods"]:
            raise _not_found(request)
        self.disrupt(
            request.name, "EvictionByEvictionAPI", "Eviction API: evicting", request.namespace
        )
        return HTTPStatus.CREATED, {"kind": "Status", "status": "Success"}

    def _bind(self, request: Request) -> tuple[int, Object]:
        if (request.namespace, request.name) not in self._objects["pods"]:
            raise _not_found(request)
        node = request.body["target"]["name"]
        self.update(
            "pods",
            request.name,
            lambda one: one["spec"].update(nodeName=node),
            namespace=request.namespace,
        )
        return HTTPStatus.CREATED, {"kind": "Status", "status": "Success"}

    def disrupt(self, pod: str, reason: str, message: str, namespace: str = "default") -> None:
        """Delete a pod for a reason that is not its own, as scheduler, taint manager and eviction API do."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": message,
        }
        with self.lock:
            self.update("pods", pod, lambda one: set_condition(one, condition), namespace=namespace)
            self.delete("pods", pod, namespace)

    def _changed(self, plural: str, kind: str, there: Object) -> Object:
        self._version += 1
        there["metadata"]["resourceVersion"] = str(self._version)
        seen = copied(there)
        self._history.append((self._version, plural, kind, seen))
        self.news.notify_all()
        return copied(seen)


@contextmanager
def api_server(fake: FakeApiServer, encryption: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve `fake` on a free port of this machine, in TLS if `encryption` is given; yield its URL."""

    class Handler(_Handler):
        server_of = fake

    try:
        with serving(Handler, encryption) as url:
            yield url
    finally:
        fake.stopped = True


class _Handler(QuietHandler):
    server_of: FakeApiServer

    def _serve(self) -> None:
        try:
            if self.path.partition("?")[0] == "/version":
                said = {"major": "1", "minor": f"{self.server_of.minor}+"}
                self._send(200, json.dumps(said).encode())
                return
            request = self._request()
            if request.verb == "watch":
                self._stream(self.server_of.watch(request))
            elif request.part == "log":
                self._send(200, self.server_of.read_log(request), "text/plain")
            else:
                status, body = self.server_of.answer(request)
                self._send(status, json.dumps(body).encode())
        except Refusal as refusal:
            self._send(refusal.status, json.dumps(refusal.body).encode())

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the header `Date`."""
        del timestamp
        return format_datetime(kubernetes_objects.now_of_server(), usegmt=True)

    do_GET = do_PATCH = do_DELETE = do_POST = _serve  # noqa: N815 - the names are http.server's

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        body = self.body()
        prefix, plural, namespace, rest = _take_apart(parts.path)
        if plural not in KINDS or KINDS[plural][0] != prefix:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return Request(
            method=self.command,
            plural=plural,
            namespace=namespace,
            name=rest[0] if rest else "",
            part=rest[1] if len(rest) > 1 else "",
            query={name: values[0] for name, values in parse_qs(parts.query).items()},
            body=json.loads(body) if body else {},
            token=self.headers.get("Authorization", "").removeprefix("Bearer "),
        )

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, events: Iterator[Object]) -> None:
        first = next(events, None)  # what is refused is refused before the answer begins
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while first is not None:
            line = json.dumps(first).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            first = next(events, None)
        self.wfile.write(b"0\r\n\r\n")


def _not_found(request: Request) -> Refusal:
    return Refusal(404, "NotFound", f'{request.plural} "{request.name}" not found')


def _take_apart(path: str) -> tuple[str, str, str, list[str]]:
    """Return prefix, plural, namespace, and name and part, of the path of a request."""
    words = path.strip("/").split("/")
    count = 2 if words[0] == "api" else 3
    prefix, rest = "/" + "/".join(words[:count]), words[count:]
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return prefix, rest[0] if rest else "", namespace, rest[1:]
