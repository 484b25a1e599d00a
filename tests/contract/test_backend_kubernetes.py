"""The contract of backends on a Kubernetes cluster of our own, by Jobs, JobSets and RayJobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract.kubernetes_world import TOKEN, KubernetesWorld
from spillway.testing.backend_suite import BackendContract
from spillway.testing.kubernetes_cluster import fake_kubernetes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MakeWorld = "Callable[..., KubernetesWorld]"


@pytest.fixture(scope="module")
def make_world(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., KubernetesWorld]]:
    folder = tmp_path_factory.mktemp("kubernetes")
    with fake_kubernetes(folder, token=TOKEN) as (url, server, cluster):
        yield lambda **options: KubernetesWorld(folder, url, server, cluster, **options)


class TestKubernetesJobs(BackendContract):
    @pytest.fixture
    def world(self, make_world: Callable[..., KubernetesWorld]) -> Iterator[KubernetesWorld]:
        world = make_world()
        yield world
        world.release_all()
