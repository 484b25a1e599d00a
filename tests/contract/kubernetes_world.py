"""A pool of a Kubernetes cluster, for the tests of its backend: the fake one, or the one that a kubeconfig names."""

from __future__ import annotations

import os
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from spillway.backends.kubernetes.backend import KubernetesBackend
from spillway.backends.protocol import Connection
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import ENDS, Behaviour, World
from spillway.testing.kubernetes_cluster import FakeCluster, fake_kubernetes
from spillway.testing.kubernetes_server import FakeApiServer, api_server
from spillway.testing.slurm_cluster import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation, Submission

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
PATIENCE_SECONDS = 60.0

# Pods of the fake are this machine by other names, which do not resolve: members of a gang are told where the first one is.
PYTHON = """\
#!/bin/sh
[ -z "$SPILLWAY_GANG_JOB" ] || export SPILLWAY_GANG_HEAD=127.0.0.1 SPILLWAY_GANG_PORT={port} SPILLWAY_GANG_RANK="$JOB_COMPLETION_INDEX"
exec {python} "$@"
"""


# What the entry points of the contract do, where the image has no Spillway.
IN_SHELL = r"""
case "$SPILLWAY_SUBMISSION" in
  *:exit_with_3*) exit 3 ;;
  *:run_on*) trap 'exit 1' TERM; while :; do sleep 0.2; done ;;
  *:print_text*) printf 'first line\nsecond line: \303\244\342\202\254\360\237\230\200\n' ;;
  *:preempt_itself*) exit 75 ;;
  *:meet*) [ "$SPILLWAY_GANG_NODES" -gt 1 ] && [ -n "$JOB_COMPLETION_INDEX" ] ;;
esac
"""


class KubernetesWorld(World):
    """A pool of its own on a fake cluster, so that tests do not see each other's jobs."""

    gangs = True

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
        python.write_text(PYTHON.format(port=free_port(), python=sys.executable))
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

    def set_pod_status(self, job: Job, **status: Any) -> None:
        """Say how the job's pod is, in the place of a kubelet; makes the pod where no controller does."""
        client = self.connection().client
        core, batch = kubernetes_client.CoreV1Api(client), kubernetes_client.BatchV1Api(client)
        namespace, name = self.options.get("namespace", "default"), str(job.provider_id)
        selector = f"spillway/job={name}"
        pods = core.list_namespaced_pod(namespace, label_selector=selector).items
        if not pods:
            template = batch.read_namespaced_job(name, namespace).spec.template
            template.metadata.name = f"{name}-0-tests"
            pods = [core.create_namespaced_pod(namespace, template)]
        core.patch_namespaced_pod_status(pods[0].metadata.name, namespace, {"status": status})

    def release_all(self) -> None:
        backend = self.connect()
        for job in backend.list_jobs():
            backend.release(job)


class RealWorld(KubernetesWorld):
    """A pool in a namespace of a real cluster, whose pods behave as the contract asks, in shell: any image with one will do."""

    def __init__(self, kubeconfig: str, namespace: str, *, slots: int = 2, **options: Any) -> None:
        self.kubeconfig = kubeconfig
        self.slots = slots
        self.name = f"contract-{uuid.uuid4().hex}"
        self.shape = Resources(cpus=0.1, memory_gib=0.05)
        self.market = Market.SPOT
        self.options = {
            "namespace": namespace,
            "image": os.environ.get("SPILLWAY_TEST_IMAGE", "busybox:stable"),
            "command": ["/bin/sh", "-c", IN_SHELL],
            "room": "slots",
            **options,
        }

    def connection(self, token: str = TOKEN) -> Connection:
        configuration = kubernetes_client.Configuration()
        kubernetes_config.load_kube_config(self.kubeconfig, client_configuration=configuration)
        if token != TOKEN:
            configuration.cert_file = configuration.key_file = None
            configuration.refresh_api_key_hook = None
            configuration.api_key = {"authorization": f"Bearer {token}"}
        return Connection(client=kubernetes_client.ApiClient(configuration))

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        return replace(super().submission(behaviour, key), resources=self.shape)

    def store_url(self) -> str:
        return "file:///not/used"


@contextmanager
def world_without_nodes(folder: Path) -> Iterator[KubernetesWorld]:
    """Give a world on an API server by itself, where the test says how pods are."""
    if "SPILLWAY_TEST_KUBECONFIG" in os.environ:
        with worlds(folder) as make:
            yield make()
        return
    server = FakeApiServer(token=TOKEN)
    with api_server(server) as url:
        yield KubernetesWorld(folder, url, server, FakeCluster(server, folder))


@contextmanager
def worlds(folder: Path) -> Iterator[Callable[..., KubernetesWorld]]:
    """Give what makes worlds: on the cluster that `SPILLWAY_TEST_KUBECONFIG` names, else on a fake one."""
    kubeconfig = os.environ.get("SPILLWAY_TEST_KUBECONFIG")
    if kubeconfig is None:
        with fake_kubernetes(folder, token=TOKEN) as (url, server, cluster):
            yield lambda **options: KubernetesWorld(folder, url, server, cluster, **options)
        return
    core = kubernetes_client.CoreV1Api(kubernetes_config.new_client_from_config(kubeconfig))
    namespace = f"spillway-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": namespace}})
    try:
        yield lambda **options: RealWorld(kubeconfig, namespace, **options)
    finally:
        core.delete_namespace(namespace)


def runs_pods() -> bool:
    """Return whether the cluster of the tests has nodes; an API server by itself takes jobs and starts none."""
    kubeconfig = os.environ.get("SPILLWAY_TEST_KUBECONFIG")
    if kubeconfig is None:
        return True
    core = kubernetes_client.CoreV1Api(kubernetes_config.new_client_from_config(kubeconfig))
    return any(
        condition.type == "Ready" and condition.status == "True"
        for node in core.list_node().items
        for condition in node.status.conditions or ()
    )


def wait_for(look: Callable[[], Any]) -> Any:
    """Return the first true answer of `look`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return seen
