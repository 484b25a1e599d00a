"""Where the contract of the Kubernetes backend runs: on a fake cluster, or on the one that `SPILLWAY_TEST_KUBECONFIG` names."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from contract.kubernetes_real import BY_HAND, VARIABLE, RealCluster, RealWorld
from contract.kubernetes_world import TOKEN, KubernetesWorld
from spillway.testing.kubernetes_cluster import FakeCluster, fake_kubernetes
from spillway.testing.kubernetes_server import FakeApiServer, api_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def worlds(folder: Path) -> Iterator[Callable[..., KubernetesWorld]]:
    """Give what makes worlds."""
    if VARIABLE in os.environ:
        cluster = RealCluster(os.environ[VARIABLE], folder)
        try:
            yield lambda **options: RealWorld(cluster, **options)
        finally:
            cluster.close()
        return
    with fake_kubernetes(folder, token=TOKEN) as (url, server, fake):
        yield lambda **options: KubernetesWorld(folder, url, server, fake, **options)


@contextmanager
def world_by_hand(
    folder: Path, make_world: Callable[..., KubernetesWorld]
) -> Iterator[KubernetesWorld]:
    """Give a world where nobody runs pods, and the test says how they are."""
    if VARIABLE in os.environ:
        yield make_world(prefix=BY_HAND)
        return
    server = FakeApiServer(token=TOKEN)
    with api_server(server) as url:
        yield KubernetesWorld(folder, url, server, FakeCluster(server, folder))
