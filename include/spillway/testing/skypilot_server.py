"""A make-believe API server of SkyPilot: requests, clusters and jobs as the real one tells of them, on machines of this one.

What the real one can do without a cloud account is tested on the real one. This has the rest: machines that come, run a job,
are lacking, are taken back or are given back. Its answers are held against SkyPilot's own models by the tests.

Source: SkyPilot 0.14, sky/server/requests/payloads.py and sky/schemas/api/responses.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path  # read from the dataclasses
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml

from spillway.testing.http_server import QuietHandler, serving
from spillway.testing.process_groups import ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USD_PER_HOUR: Final = 3.6
"""Of every machine, so that a second costs a tenth of a cent."""

_LONG: Final = frozenset({"launch"})
_KILLED: Final = 137


@dataclass
class SkyRefusal(Exception):  # noqa: N818  # what SkyPilot answers; not an error of ours
    """An exception of SkyPilot: its class's name, and what it says."""

    type: str
    message: str


@dataclass
class _Node:
    group: ProcessGroup
    output: Path


@dataclass
class _Cluster:
    """A cluster and its one job."""

    name: str
    task: dict[str, Any]
    text: str
    launched_at: int
    status: str = "UP"
    reason: str = ""
    nodes: list[_Node] = field(default_factory=list[_Node])
    ended_at: int | None = None
    forced: str | None = None

    def codes(self) -> list[int] | None:
        """Return the nodes' exit codes once all have ended; one that fails ends the others, as SkyPilot has it."""
        codes = [node.group.exit_code() for node in self.nodes]
        if any(codes):
            for node, code in zip(self.nodes, codes, strict=True):
                if code is None:
                    node.group.signal(signal.SIGKILL)
            return [node.group.wait() for node in self.nodes]
        return None if None in codes else [code for code in codes if code is not None]

    def job_status(self) -> str:
        if self.forced is not None:
            return self.forced
        codes = self.codes()
        if codes is None:
            return "RUNNING"
        return "FAILED" if any(codes) else "SUCCEEDED"

    def log(self) -> str:
        """Return its output as SkyPilot streams it: who prints, before every line, and the exit codes under it."""
        lines = ["\u251c\u2500\u2500 Waiting for task resources on 1 node."]
        for rank, node in enumerate(self.nodes):
            pid = node.group.process.pid
            place = "head" if rank == 0 else f"worker{rank}"
            speaker = self.name if len(self.nodes) == 1 else f"{place}, rank={rank}"
            text = node.output.read_bytes().decode(errors="replace")
            lines += [f"\x1b[36m({speaker}, pid={pid})\x1b[0m {line}" for line in text.splitlines()]
        codes = self.codes()
        if codes is not None and any(codes):
            lines.append(f"ERROR: \x1b[31mJob 1 failed with return code list:\x1b[0m {codes} ")
        return "\n".join([*lines, ""])

    def end(self) -> None:
        for node in self.nodes:
            node.group.signal(signal.SIGKILL)
            node.group.wait()


class FakeSkyPilot:
    """The server's state; what tests do to it and look at.

    Attributes:
        room: How many more machines the cloud has.
        holds: Whether launches wait for machines until `let_go`.
        lingers: Whether machines that are taken down are there until `finish_downs`.
        refusal: What the next launches fail with.
        token: What requests must carry; None for no credentials.
        throttle: Answers of 429 that are still to be given.
        calls: Path of each call.
        launches: Body of each launch.
        prices: What `/list_accelerators` answers.
    """

    def __init__(self, folder: Path) -> None:
        self.room = 100
        self.holds = False
        self.lingers = False
        self.refusal: SkyRefusal | None = None
        self.token: str | None = None
        self.throttle = 0
        self.calls: list[str] = []
        self.launches: list[dict[str, Any]] = []
        self.prices: dict[str, list[list[Any]]] = {}
        self.url = ""
        self._folder = folder
        self._lock = threading.RLock()
        self._requests: dict[str, dict[str, Any]] = {}
        self._clusters: dict[str, _Cluster] = {}
        self._history: list[_Cluster] = []

    # ---- what tests do -----------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """Have machines come for the launches that wait."""
        with self._lock:
            self.holds = False
            for request in self._requests.values():
                if request["name"] == "sky.launch" and request["status"] == "RUNNING":
                    self._bring_up(self._clusters[request["cluster_name"]])
                    self._finish(request, {"job_id": 1, "handle": None})

    def finish_downs(self) -> None:
        """Have the machines be gone that are being taken down."""
        with self._lock:
            self.lingers = False
            for request in self._requests.values():
                if request["name"] == "sky.down" and request["status"] == "RUNNING":
                    self._remove(request["cluster_name"])
                    self._finish(request, None)

    def preempt(self, name: str) -> None:
        """Have the cloud take a cluster's machines back: SkyPilot finds them gone and forgets the cluster."""
        with self._lock:
            self._remove(name)

    def break_up(self, name: str) -> None:
        """Have some of a cluster's machines be gone, which SkyPilot cannot tell from other trouble."""
        with self._lock:
            self._clusters[name].status = "INIT"
            self._clusters[name].reason = "some nodes are terminated"

    def autostop(self, name: str) -> None:
        """Have a cluster's machines begin to end themselves."""
        self._clusters[name].status = "AUTOSTOPPING"

    def set_job(self, name: str, status: str) -> None:
        """Have a cluster's job be in a state."""
        self._clusters[name].forced = status

    def run_again(self, name: str) -> subprocess.CompletedProcess[bytes]:
        """Run a cluster's job a second time on its first machine, as a second launch does, and wait for its end."""
        cluster = self._clusters[name]
        home = cluster.nodes[0].output.parent
        return subprocess.run(  # noqa: S603  # the tests' own job
            ["bash", "-c", cluster.task["run"]],  # noqa: S607
            cwd=home,
            env=_environment(cluster, home, 0, "127.0.0.1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def stop_all(self) -> None:
        """End whatever runs."""
        with self._lock:
            for name in list(self._clusters):
                self._remove(name)

    def rows(self) -> list[dict[str, Any]]:
        """Return what `POST /status` answers."""
        with self._lock:
            return [_row(one) for one in self._clusters.values()]

    def bodies(self) -> list[str]:
        """Return the body of each request that was handed in."""
        return [str(one["request_body"]) for one in self._requests.values()]

    # ---- requests ----------------------------------------------------------------------------------------------

    def begin(self, path: str, body: Mapping[str, Any]) -> str:
        """Take a request and do it, and return its id."""
        name = path.strip("/")
        with self._lock:
            request: dict[str, Any] = {
                "request_id": str(uuid.uuid4()),
                "name": f"sky.{name.replace('/', '.').replace('api.', 'api_')}",
                "entrypoint": "",
                "request_body": json.dumps(body),
                "status": "RUNNING",
                "created_at": time.time(),
                "user_id": body["env_vars"]["SKYPILOT_USER_ID"],
                "return_value": "null",
                "error": "null",
                "pid": None,
                "schedule_type": "long" if name in _LONG else "short",
                "cluster_name": body.get("cluster_name"),
            }
            self._requests[request["request_id"]] = request
            try:
                self._do(name, body, request)
            except SkyRefusal as refusal:
                request["status"] = "FAILED"
                request["error"] = json.dumps(
                    {"object": "", "type": refusal.type, "message": refusal.message}
                )
            return str(request["request_id"])

    def request(self, name: str) -> dict[str, Any] | None:
        """Return a request."""
        return self._requests.get(name)

    def listed(self, cluster: str | None, *, finished: bool) -> list[dict[str, Any]]:
        """Return what `GET /api/status` answers."""
        with self._lock:
            return [
                {**one, "error": "null", "return_value": "null"}
                for one in self._requests.values()
                if (cluster is None or one["cluster_name"] == cluster)
                and (finished or one["status"] in {"PENDING", "RUNNING"})
            ]

    def output(self, cluster: str) -> str:
        """Return what `POST /logs` answers."""
        with self._lock:
            found = self._clusters.get(cluster)
            return "" if found is None else found.log()

    def _do(self, name: str, body: Mapping[str, Any], request: dict[str, Any]) -> None:
        match name:
            case "launch":
                self._launch(body, request)
                return
            case "status":
                names = body.get("cluster_names")
                rows = self.rows()
                answer: Any = [one for one in rows if names is None or one["name"] in names]
            case "down":
                cluster = self._found(body["cluster_name"])
                if self.lingers:
                    cluster.end()
                    return
                self._remove(cluster.name)
                answer = None
            case "job_status":
                answer = {"1": self._up(body["cluster_name"]).job_status()}
            case "cost_report":
                answer = self._costs(body.get("cluster_names"))
            case "api/cancel":
                answer = [one for one in body["request_ids"] if self._cancel(one)]
            case "list_accelerators":
                answer = self.prices
            case _:
                raise SkyRefusal("NotSupportedError", f"{name} is not here")
        self._finish(request, answer)

    def _launch(self, body: Mapping[str, Any], request: dict[str, Any]) -> None:
        self.launches.append(dict(body))
        if self.refusal is not None:
            raise self.refusal
        name = body["cluster_name"]
        task = yaml.safe_load(body["task"])
        there = self._clusters.get(name)
        if there is None:
            if task["num_nodes"] > self.room:
                raise SkyRefusal(
                    "ResourcesUnavailableError",
                    f"Failed to provision all possible launchable resources. Relax the task's resource requirements: "
                    f"{task['resources']['infra']}",
                )
            there = _Cluster(name, task, body["task"], int(time.time()), status="INIT")
            self._clusters[name] = there
            self.room -= task["num_nodes"]
        if not self.holds:
            self._bring_up(there)
            self._finish(request, {"job_id": 1, "handle": None})

    def _bring_up(self, cluster: _Cluster) -> None:
        cluster.status = "UP"
        if not cluster.nodes:
            count = cluster.task["num_nodes"]
            addresses = "\n".join(f"127.0.0.{rank + 1}" for rank in range(count))
            cluster.nodes = [self._node(cluster, rank, addresses) for rank in range(count)]

    def _node(self, cluster: _Cluster, rank: int, addresses: str) -> _Node:
        home = self._folder / uuid.uuid4().hex
        home.mkdir(parents=True)
        output = home / "run.log"
        with output.open("wb") as file:
            group = ProcessGroup(
                ["bash", "-c", cluster.task["run"]],
                cwd=home,
                env=_environment(cluster, home, rank, addresses),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return _Node(group, output)

    def _cancel(self, name: str) -> bool:
        request = self._requests[name]
        if request["status"] != "RUNNING":
            return False
        request["status"] = "CANCELLED"
        return True

    def _remove(self, name: str) -> None:
        cluster = self._clusters.pop(name)
        cluster.end()
        cluster.ended_at = int(time.time())
        self._history.append(cluster)
        self.room += cluster.task["num_nodes"]

    def _found(self, name: str) -> _Cluster:
        if name not in self._clusters:
            raise SkyRefusal("ClusterDoesNotExist", f"Cluster {name!r} does not exist.")
        return self._clusters[name]

    def _up(self, name: str) -> _Cluster:
        cluster = self._found(name)
        if cluster.status not in {"UP", "AUTOSTOPPING"}:
            raise SkyRefusal("ClusterNotUpError", f"Cluster {name!r} is not up.")
        return cluster

    def _costs(self, names: list[str] | None) -> list[dict[str, Any]]:
        every = [*self._history, *self._clusters.values()]
        return [_cost(one) for one in every if names is None or one.name in names]

    def _finish(self, request: dict[str, Any], answer: Any) -> None:
        request.update(status="SUCCEEDED", return_value=json.dumps(answer), finished_at=time.time())


def _environment(cluster: _Cluster, home: Path, rank: int, addresses: str) -> dict[str, str]:
    """Source: SkyPilot, "Environment variables", docs.skypilot.co/en/latest/running-jobs/environment-variables.html."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        **cluster.task["envs"],
        "SKYPILOT_NODE_RANK": str(rank),
        "SKYPILOT_NUM_NODES": str(cluster.task["num_nodes"]),
        "SKYPILOT_NODE_IPS": addresses,
    }


def _row(cluster: _Cluster) -> dict[str, Any]:
    is_unhealthy = cluster.status == "INIT" and bool(cluster.nodes)
    return {
        "name": cluster.name,
        "launched_at": cluster.launched_at,
        "last_use": "spillway",
        "status": cluster.status,
        "autostop": cluster.task["resources"].get("autostop", {}).get("idle_minutes", -1),
        "to_down": "autostop" in cluster.task["resources"],
        "cluster_hash": uuid.uuid5(uuid.NAMESPACE_URL, cluster.name).hex,
        "cluster_ever_up": bool(cluster.nodes),
        "status_updated_at": cluster.launched_at,
        "user_hash": "abcdef01",
        "user_name": "spillway",
        "workspace": "default",
        "last_creation_yaml": cluster.text,
        "is_managed": False,
        "nodes": cluster.task["num_nodes"],
        "labels": cluster.task["resources"].get("labels", {}),
        **(
            {"init_kind": "unhealthy" if is_unhealthy else "launching"}
            if cluster.status == "INIT"
            else {}
        ),
        **({"init_status_reason": cluster.reason} if cluster.reason else {}),
    }


def _cost(cluster: _Cluster) -> dict[str, Any]:
    duration = (cluster.ended_at or int(time.time())) - cluster.launched_at
    return {
        "name": cluster.name,
        "launched_at": cluster.launched_at,
        "duration": duration,
        "num_nodes": cluster.task["num_nodes"],
        "cluster_hash": uuid.uuid5(uuid.NAMESPACE_URL, cluster.name).hex,
        "total_cost": duration * cluster.task["num_nodes"] * USD_PER_HOUR / 3600,
        "status": None if cluster.ended_at else cluster.status,
    }


@contextmanager
def fake_skypilot(folder: Path) -> Iterator[FakeSkyPilot]:  # noqa: C901  # one method a verb
    """Serve a make-believe API server until the block ends."""
    sky = FakeSkyPilot(folder)

    class Handler(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802  # the library's name
            url = urlsplit(self.path)
            sky.calls.append(url.path)
            if not self._may():
                return
            query = parse_qs(url.query)
            if url.path == "/api/get":
                self._get(query["request_id"][0])
            elif url.path == "/api/status":
                cluster = query.get("cluster_name", [None])[0]
                finished = query.get("all_status") == ["true"]
                self._answer(200, sky.listed(cluster, finished=finished))
            else:
                self._answer(404, {"detail": "Not Found"})

        def do_POST(self) -> None:  # noqa: N802  # the library's name
            body = json.loads(self.body())
            sky.calls.append(self.path)
            if not self._may():
                return
            if self.path == "/logs":
                self._send(200, sky.output(body["cluster_name"]).encode(), "text/plain", {})
                return
            request = sky.begin(self.path, body)
            self._answer(200, None, {"X-Skypilot-Request-ID": request})

        def _may(self) -> bool:
            if sky.throttle > 0:
                sky.throttle -= 1
                self._answer(429, {"detail": "Too many requests"}, {"Retry-After": "7"})
                return False
            if sky.token and self.headers.get("Authorization") != f"Bearer {sky.token}":
                self._answer(401, {"detail": "Invalid or expired service account token"})
                return False
            return True

        def _get(self, name: str) -> None:
            request = sky.request(name)
            if request is None:
                self._answer(404, {"detail": f"Request {name!r} not found"})
            elif request["status"] == "FAILED":
                self._answer(500, {"detail": request})
            else:
                self._answer(200, request)

        def _answer(
            self, status: int, content: Any, headers: Mapping[str, str] | None = None
        ) -> None:
            self._send(status, json.dumps(content).encode(), "application/json", headers or {})

        def _send(self, status: int, data: bytes, kind: str, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with serving(Handler) as url:
        sky.url = url
        try:
            yield sky
        finally:
            sky.stop_all()
