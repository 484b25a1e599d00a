"""Our kubelet as the only node of an API server, over the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from contract.kubernetes_world import TOKEN, KubernetesWorld
from spillway.model import JobEvent
from spillway.testing.backend_suite import Behaviour
from spillway.testing.kubernetes_cluster import FakeCluster
from spillway.testing.kubernetes_remote import own_kubelet
from spillway.testing.kubernetes_server import FakeApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesWorld]:
    folder: Path = tmp_path_factory.mktemp("kubernetes")
    server = FakeApiServer(token=TOKEN)
    with api_server(server) as url:
        nobody = FakeCluster(server, folder)  # never started
        world = KubernetesWorld(folder, url, server, nobody)
        with own_kubelet(
            world.connection().client,
            "default",
            folder,
            node="node-of-the-tests",
            concerns=lambda _: True,
            controls_jobs=True,
        ):
            yield world
    assert server.all("nodes") == []


def test_it_runs_jobs_to_their_ends(world: KubernetesWorld) -> None:
    backend = world.connect()
    for behaviour, end in (
        (Behaviour.SUCCEEDS, (JobEvent.SUCCEEDED, 0)),
        (Behaviour.FAILS_WITH_3, (JobEvent.FAILED, 3)),
    ):
        job = backend.submit(world.submission(behaviour))
        seen = world.wait(backend, job)
        assert (seen.event, seen.exit_code) == end


def test_it_ends_what_is_released(world: KubernetesWorld) -> None:
    backend = world.connect()
    gang = replace(world.submission(Behaviour.RUNS_ON), nodes=2)
    job = backend.submit(gang)
    world.wait(backend, job, frozenset({JobEvent.STARTED}))
    backend.release(job)
    assert world.wait(backend, job).event in {JobEvent.VANISHED, JobEvent.CANCELLED}
