"""The real cluster that `SPILLWAY_TEST_KUBECONFIG` names, whatever it is: whole, an API server by itself, old, or mostly forbidden.

Everything is made in a namespace of its own, or in the kubeconfig's where none can be made, and is gone in the end.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes.client.exceptions import ApiException

from contract.in_shell import IN_SHELL
from contract.kubernetes_world import TOKEN, KubernetesWorld, Pods
from patience import PATIENCE_SECONDS
from spillway.backends.kubernetes import naming
from spillway.backends.protocol import Connection
from spillway.errors import BackendError
from spillway.model import JobEvent, Market, Resources
from spillway.testing.backend_suite import Behaviour
from spillway.testing.kubernetes_remote import own_kubelet

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.model import Submission

VARIABLE = "SPILLWAY_TEST_KUBECONFIG"
POOLS = "contract-"
BY_HAND = "contract-by-hand-"
INDEXED_SINCE = 22
CONTROLLERS_SECONDS = 10.0
"""How long a cluster may take to make a pod, or a scheduler to say something of it."""
IMAGES_SECONDS = 180.0


class RealCluster:
    """The cluster, as the kubeconfig's user may use it.

    Attributes:
        namespace: Where the tests make everything.
        minor: Which Kubernetes 1 it is.
    """

    def __init__(self, kubeconfig: str, folder: Path) -> None:
        self.kubeconfig, self.folder = kubeconfig, folder
        self.client = self.new_client()
        self.core = kubernetes_client.CoreV1Api(self.client)
        self.batch = kubernetes_client.BatchV1Api(self.client)
        said = kubernetes_client.VersionApi(self.client).get_code().minor
        self.minor = int("".join(filter(str.isdigit, said)))
        self.namespace = f"spillway-test-{uuid.uuid4().hex[:8]}"
        self._stack = ExitStack()
        try:
            self.core.create_namespace({"metadata": {"name": self.namespace}})
            self._stack.callback(self._delete_namespace)
        except ApiException as error:
            if error.status != 403:
                raise
            _, active = kubernetes_config.list_kube_config_contexts(kubeconfig)
            self.namespace = active["context"].get("namespace", "default")
        self._stack.callback(self._delete_objects)

    def new_client(self, token: str = TOKEN) -> kubernetes_client.ApiClient:
        """Return a client as the kubeconfig has it; with another token, one that has only that."""
        configuration = kubernetes_client.Configuration()
        kubernetes_config.load_kube_config(self.kubeconfig, client_configuration=configuration)
        configuration.retries = False
        if token != TOKEN:
            configuration.cert_file = configuration.key_file = None
            configuration.refresh_api_key_hook = None
            configuration.api_key = {"authorization": f"Bearer {token}"}
        return kubernetes_client.ApiClient(configuration)

    def close(self) -> None:
        """Leave nothing behind."""
        self._stack.close()

    @cached_property
    def pods(self) -> Pods:
        """Who runs pods, found out by trying: the cluster; else we do, as a node of it; else nobody."""
        world = RealWorld(self)
        backend = world.connect()
        try:
            job = backend.submit(world.submission(Behaviour.SUCCEEDS))
        except BackendError as error:
            return Pods(nobody=f"no job can be submitted: {error}")
        try:
            return self._try(str(job.provider_id), lambda: backend.observe([job])[job.key])
        finally:
            backend.release(job)

    def _try(self, name: str, look: Any) -> Pods:
        began = time.monotonic()
        while (seen := look()).event is not JobEvent.SUCCEEDED:
            selector = f"{naming.JOB}={name}"
            pods = self.core.list_namespaced_pod(self.namespace, label_selector=selector).items
            is_placed = any(pod.spec.node_name for pod in pods)
            if time.monotonic() - began > (IMAGES_SECONDS if is_placed else CONTROLLERS_SECONDS):
                break
            time.sleep(0.2)  # until the deadline
        else:
            return Pods()
        if is_placed or any(pod.status.conditions for pod in pods):
            nobody = f"the cluster has a scheduler, and yet the pod does not run: {seen.detail}"
            return Pods(nobody=nobody, is_cluster=True)
        return self._run_them(is_controlled=bool(pods))

    def _run_them(self, *, is_controlled: bool) -> Pods:
        needs = [
            ("create", "nodes", ""),
            ("patch", "nodes/status", ""),
            ("delete", "nodes", ""),
            ("create", "pods/binding", ""),
            ("patch", "pods/status", ""),
            ("delete", "pods", ""),
        ]
        if not is_controlled:
            needs += [("create", "pods", ""), ("patch", "jobs/status", "batch")]
        missing = [
            f"{verb} {what}" for verb, what, group in needs if not self._may(verb, what, group)
        ]
        if missing:
            nobody = (
                "nobody runs pods, and the tests may not do it: their user lacks the permission to "
            )
            return Pods(
                nobody=nobody + ", ".join(missing), is_cluster=False, is_controlled=is_controlled
            )
        self._stack.enter_context(
            own_kubelet(
                self.new_client(),
                self.namespace,
                self.folder,
                node=f"spillway-test-{uuid.uuid4().hex[:8]}",
                concerns=_is_to_run,
                controls_jobs=not is_controlled,
            )
        )
        host = urlsplit(self.client.configuration.host).hostname
        is_here = host in {"127.0.0.1", "localhost", "::1"}
        return Pods(is_cluster=False, is_controlled=is_controlled, shows_output=is_here)

    def _may(self, verb: str, resource: str, group: str) -> bool:
        name, _, part = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": name, "namespace": self.namespace}
        if part:
            asked["subresource"] = part
        review = kubernetes_client.AuthorizationV1Api(self.client)
        body = {"spec": {"resourceAttributes": asked}}
        return bool(review.create_self_subject_access_review(body).status.allowed)

    def _delete_objects(self) -> None:
        core, batch = self.core, self.batch
        for list_all, delete, how in (
            (batch.list_namespaced_job, batch.delete_namespaced_job, {}),
            (core.list_namespaced_service, core.delete_namespaced_service, {}),
            (core.list_namespaced_pod, core.delete_namespaced_pod, {"grace_period_seconds": 0}),
        ):
            with suppress(ApiException):  # a kind that is not for us is none that we made
                mine = list_all(self.namespace, label_selector=naming.POOL).items
                for one in mine:
                    if one.metadata.labels[naming.POOL].startswith(POOLS):
                        with suppress(ApiException):  # gone, or not ours to delete
                            policy = {"propagation_policy": "Background", **how}
                            delete(one.metadata.name, self.namespace, **policy)

    def _delete_namespace(self) -> None:
        self.core.delete_namespace(self.namespace)
        began = time.monotonic()
        while (waited := time.monotonic() - began) < PATIENCE_SECONDS:
            try:
                there = self.core.read_namespace(self.namespace)
            except ApiException as error:
                if error.status == 404:
                    return
                raise
            if there.status.conditions:  # somebody empties it, and lets it go then
                return
            if waited > CONTROLLERS_SECONDS:
                break
            time.sleep(0.2)  # until the deadline
        # An API server by itself: nobody else lets it go.
        body = {"metadata": {"name": self.namespace}, "spec": {"finalizers": []}}
        with suppress(ApiException):  # it has gone in this moment
            self.core.replace_namespace_finalize(self.namespace, body)


class RealWorld(KubernetesWorld):
    """A pool of a real cluster, whose pods behave as the contract asks, in shell: any image with one will do."""

    def __init__(
        self, cluster: RealCluster, *, slots: int = 2, prefix: str = POOLS, **options: Any
    ) -> None:
        self.real = cluster
        self.slots = slots
        self.name = f"{prefix}{uuid.uuid4().hex}"
        self.shape = Resources(cpus=0.1, memory_gib=0.05)
        self.market = Market.SPOT
        self.gangs = cluster.minor >= INDEXED_SINCE
        self.options = {
            "namespace": cluster.namespace,
            "image": os.environ.get("SPILLWAY_TEST_IMAGE", "busybox:stable"),
            "command": ["/bin/sh", "-c", IN_SHELL],
            "room": "slots",
            **options,
        }

    def pods(self) -> Pods:
        return self.real.pods

    def connection(self, token: str = TOKEN) -> Connection:
        return Connection(client=self.real.new_client(token))

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        return replace(super().submission(behaviour, key), resources=self.shape)

    def store_url(self) -> str:
        return "file:///not/used"


def _is_to_run(made: dict[str, Any]) -> bool:
    pool = str((made["metadata"].get("labels") or {}).get(naming.POOL, ""))
    return pool.startswith(POOLS) and not pool.startswith(BY_HAND)
