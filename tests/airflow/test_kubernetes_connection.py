"""A job that runs by an Airflow connection alone, through the hook of the provider cncf-kubernetes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from contract.kubernetes_world import TOKEN, KubernetesWorld
from spillway.airflow.clients import client_of
from spillway.backends.protocol import Connection
from spillway.backends.registry import load
from spillway.model import JobEvent
from spillway.testing.backend_suite import Behaviour
from spillway.testing.kubernetes_cluster import fake_kubernetes

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_connection_is_all_that_a_cluster_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_kubernetes(tmp_path, token=TOKEN) as (url, server, cluster):
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "partner", "cluster": {"server": url}}],
            "users": [{"name": "spillway", "user": {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "partner", "user": "spillway"}}],
            "current-context": "x",
        }
        extra = {"kube_config": json.dumps(kubeconfig), "namespace": "default"}
        told = {"conn_type": "kubernetes", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_PARTNER", json.dumps(told))
        world = KubernetesWorld(tmp_path, url, server, cluster)
        connection = Connection(client=client_of("kubernetes", "partner"), extra=extra)
        backend = load(world.pool(), home=tmp_path, connection=connection)
        job = backend.submit(world.submission(Behaviour.SUCCEEDS))
        assert world.wait(backend, job).event is JobEvent.SUCCEEDED
