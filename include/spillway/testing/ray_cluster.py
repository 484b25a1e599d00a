"""A Ray cluster of one's own for the length of a test: real nodes on this machine, token authentication, gone afterwards.

It is ended by the ids of its processes: `ray stop` would end every other Ray of the machine with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import psutil

from spillway.runtime.gang.ray_node import STARTS, TIMED_OUT
from spillway.testing.servers import LOOPBACK, NotStartedError, free_port
from spillway.workloads.own_ray import NO_SPARE_WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEAD: Final = "head"

_MARK: Final = "SPILLWAY_TEST_CLUSTER"
_SECONDS_TO_START: Final = 150
_SECONDS_TO_STOP: Final = 10
_LEAST_STORE_BYTES: Final = 80_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """A cluster that runs.

    Attributes:
        folder: Where everything of it is.
        gcs_port: Where its nodes meet.
        url: Where its dashboard answers, and with it the Jobs API.
        takes_jobs: Whether it has these.
        nodes: The `ray start` of each node, by the node's name.
    """

    folder: Path
    token: str
    gcs_port: int
    dashboard_port: int
    takes_jobs: bool = True
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where the Jobs API answers."""
        return f"http://{LOOPBACK}:{self.dashboard_port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to be let in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    @property
    def _settings(self) -> Mapping[str, str]:
        # A lost node is noticed after 5 s, not after Ray's usual 15.
        health = {"RAY_health_check_period_ms": "1000", "RAY_health_check_initial_delay_ms": "1000"}
        mark = {"PYTHONUNBUFFERED": "1", _MARK: str(self.folder)}
        return {**mark, **self.environment, **health, **NO_SPARE_WORKERS}

    def get(self, path: str) -> httpx.Response:
        """Ask the dashboard."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=30)

    def start_node(
        self, name: str, *, cpus: int, resources: str = "{}", times: int = STARTS
    ) -> None:
        """Start a node of the cluster, and wait until it has joined; start it again where Ray did not wait long enough."""
        place = self._head_flags() if name == HEAD else [f"--address={LOOPBACK}:{self.gcs_port}"]
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *place,
            f"--temp-dir={self.folder}/{name}",
            f"--node-ip-address={LOOPBACK}",
            f"--dashboard-agent-listen-port={free_port()}",
            *("--min-worker-port=0", "--max-worker-port=0"),
            *(f"--num-cpus={cpus}", "--num-gpus=0", f"--resources={resources}"),
            f"--object-store-memory={_LEAST_STORE_BYTES}",
            *("--disable-usage-stats", "--include-log-monitor=false"),
        ]
        output = self.folder / f"{name}.out"
        with output.open("wb") as file:
            self.nodes[name] = subprocess.Popen(  # noqa: S603  # Ray's own command, in this interpreter
                command,
                env={**os.environ, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=self.folder,
                start_new_session=True,
            )
        try:
            self._wait_until_started(name, output)
        except NotStartedError as error:
            _end(self.nodes.pop(name))
            if TIMED_OUT not in str(error) or times == 1:
                raise
            self.start_node(name, cpus=cpus, resources=resources, times=times - 1)

    def kill_node(self, name: str) -> None:
        """Kill every process of the node at once, as the loss of its machine would."""
        _end(self.nodes.pop(name))

    def stop(self) -> None:
        """End all nodes, the head last."""
        for name in sorted(self.nodes, key=lambda name: name == HEAD):
            _end(self.nodes.pop(name))
        _end_strays(self.folder)

    def _head_flags(self) -> list[str]:
        return [
            "--head",
            f"--port={self.gcs_port}",
            f"--include-dashboard={str(self.takes_jobs).lower()}",
            f"--dashboard-host={LOOPBACK}",
            f"--dashboard-port={self.dashboard_port}",
            f"--ray-client-server-port={free_port()}",
            *(() if self.takes_jobs else ("--no-monitor",)),  # which says what a job waits for
        ]

    def _wait_until_started(self, name: str, output: Path) -> None:
        deadline = time.monotonic() + _SECONDS_TO_START
        while b"Ray runtime started" not in output.read_bytes():
            if self.nodes[name].poll() is not None or time.monotonic() > deadline:
                words = output.read_text(encoding="utf-8", errors="replace")[-3000:]
                raise NotStartedError(f"the node {name} did not start: {words}")
            time.sleep(0.1)


@contextmanager
def ray_cluster(*, cpus: int = 4, takes_jobs: bool = True) -> Iterator[RayCluster]:
    """Run a cluster of one node, its head; `start_node` adds others.

    Args:
        cpus: Of its head.
        takes_jobs: Whether it has a dashboard, and with it the Jobs API.
    """
    # Not pytest's folder: its path is too long for Ray's sockets.
    folder = Path(tempfile.mkdtemp(prefix="sw-ray-"))
    cluster = RayCluster(
        folder=folder,
        token=secrets.token_hex(32),
        gcs_port=free_port(),
        dashboard_port=free_port(),
        takes_jobs=takes_jobs,
    )
    try:
        cluster.start_node(HEAD, cpus=cpus)
        if takes_jobs:
            _wait_until_it_takes_jobs(cluster)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def is_installed() -> bool:
    """Return whether Ray can be run here."""
    return find_spec("ray") is not None


def _wait_until_it_takes_jobs(cluster: RayCluster) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while True:
        with suppress(httpx.TransportError):
            if cluster.get("/api/jobs/").status_code == httpx.codes.OK:
                return
        if time.monotonic() > deadline:
            raise NotStartedError(f"the Jobs API does not answer; see {cluster.folder}")
        time.sleep(0.1)


def _end(node: subprocess.Popen[bytes]) -> None:
    """Kill a node's `ray start` and everything it started: nothing of a test's cluster is worth a farewell."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(node.pid).children(recursive=True)
    node.kill()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait()
    psutil.wait_procs(family, timeout=_SECONDS_TO_STOP)


def _end_strays(folder: Path) -> None:
    """End what left the family of its node: jobs run in sessions of their own."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(_MARK) == str(folder):
                process.kill()
