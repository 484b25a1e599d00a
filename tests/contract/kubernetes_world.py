"""A pool of a fake Kubernetes cluster, for the tests of its backend."""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubernetes import client as kubernetes_client

from patience import LOOK_SECONDS, PATIENCE_SECONDS
from spillway.backends.kubernetes.backend import KubernetesBackend
from spillway.backends.protocol import Connection
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import ENDS, Behaviour, World
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation, Submission
    from spillway.testing.kubernetes_cluster import FakeCluster
    from spillway.testing.kubernetes_server import FakeApiServer

ENTRY_POINTS = Path(__file__).parent.parent / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.MEETS: "meet",
    Behaviour.IS_PREEMPTED: "preempt_itself",
}
TOKEN = "a token of the tests"

# Pods of the fake are this machine by other names, which do not resolve: members of a gang are told where the first one is.
PYTHON = """\
#!/bin/sh
[ -z "$SPILLWAY_GANG_JOB" ] || export SPILLWAY_GANG_HEAD=127.0.0.1 SPILLWAY_GANG_PORT={port} SPILLWAY_GANG_RANK="$JOB_COMPLETION_INDEX"
exec {python} "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Pods:
    """Who runs pods.

    Attributes:
        nobody: Why nobody does; empty where somebody does.
        is_cluster: Whether the cluster has nodes of its own.
        is_controlled: Whether the cluster makes pods of Jobs.
        shows_output: Whether what they print can be read.
    """

    nobody: str = ""
    is_cluster: bool = True
    is_controlled: bool = True
    shows_output: bool = True


class KubernetesWorld(World):
    """A pool of its own on a fake cluster, so that tests do not see each other's jobs."""

    gangs = True

    def pods(self) -> Pods:
        """Return who runs pods here."""
        return Pods()

    def __init__(
        self,
        folder: Path,
        url: str,
        server: FakeApiServer,
        cluster: FakeCluster,
        *,
        slots: int = 2,
        **options: Any,
    ) -> None:
        self.url, self.server, self.cluster = url, server, cluster
        self.slots = slots
        self.name = f"contract-{uuid.uuid4().hex}"
        self.folder = folder
        self.shape = Resources()
        self.market = Market.SPOT
        python = folder / f"python-{self.name}"
        python.write_text(PYTHON.format(port=free_port(following=1), python=sys.executable))
        python.chmod(0o755)
        self.options: dict[str, Any] = {
            "image": "spillway-of-the-tests",
            "python": str(python),
            "environment": {"PYTHONPATH": str(ENTRY_POINTS)},
            **options,
        }

    def pool(self) -> Pool:
        return Pool(
            name=self.name,
            backend="kubernetes",
            market=self.market,
            slots=self.slots,
            shape=self.shape,
            list_usd_per_hour=Decimal(1),
            options=self.options,
        )

    def connection(self, token: str = TOKEN) -> Connection:
        configuration = kubernetes_client.Configuration(
            host=self.url, api_key={"authorization": f"Bearer {token}"}
        )
        configuration.retries = False
        return Connection(client=kubernetes_client.ApiClient(configuration))

    def connect(self, token: str = TOKEN) -> KubernetesBackend:
        return KubernetesBackend(self.pool(), home=Path(), connection=self.connection(token))

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any],
        content_type: str = "application/json",
        **query: str,
    ) -> None:
        """Ask the API server for what the backend does not ask it for."""
        self.connection().client.call_api(
            path,
            method,
            body=body,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            auth_settings=["BearerToken"],
            response_types_map=dict.fromkeys((200, 201), "object"),
        )

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.folder / "store").as_uri()

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        return replace(super().submission(behaviour, key), pool=self.name)

    def job_of(self, entry_point: str, **arguments: Any) -> Submission:
        """Return a submission of another entry point."""
        base = self.submission(Behaviour.SUCCEEDS)
        return replace(base, entry_point=entry_point, arguments=arguments)

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent] = ENDS) -> Observation:
        def look() -> Observation | None:
            seen = backend.observe([job])[job.key]
            return seen if seen.event in events else None

        found: Observation = wait_for(look)
        return found

    def pod_of(self, job: Job) -> str:
        """Return the name of the job's first pod."""
        pods = self.server.all("pods")
        named = [
            pod["metadata"]["name"]
            for pod in pods
            if pod["metadata"]["labels"].get("spillway/job") == job.provider_id
        ]
        return str(named[0])

    def set_pod_status(self, job: Job, *, makes_pod: bool, **status: Any) -> None:
        """Say how the job's pod is, in the place of a kubelet, and before, where `makes_pod`, of a job controller."""
        client = self.connection().client
        core, batch = kubernetes_client.CoreV1Api(client), kubernetes_client.BatchV1Api(client)
        namespace, name = self.options.get("namespace", "default"), str(job.provider_id)
        selector = f"spillway/job={name}"

        def find() -> Any:
            return core.list_namespaced_pod(namespace, label_selector=selector).items

        pods = find() if makes_pod else wait_for(find)
        if not pods:
            template = batch.read_namespaced_job(name, namespace).spec.template
            template.metadata.name = f"{name}-0-tests"
            pods = [core.create_namespaced_pod(namespace, template)]
        core.patch_namespaced_pod_status(pods[0].metadata.name, namespace, {"status": status})

    def release_all(self) -> None:
        backend = self.connect()
        for job in backend.list_jobs():
            backend.release(job)


def wait_for(look: Callable[[], Any]) -> Any:
    """Return the first true answer of `look`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(LOOK_SECONDS)
    return seen
