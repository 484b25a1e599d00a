"""The contract of backends on a real Slurm cluster, through the REST API and through the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract.slurm_world import RestWorld, SlurmWorld
from spillway.testing.backend_suite import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.testing.slurm_cluster import SlurmCluster


class TestSlurmThroughItsCommands(BackendContract):
    @pytest.fixture
    def world(self, cluster: SlurmCluster) -> Iterator[SlurmWorld]:
        world = SlurmWorld(cluster)
        yield world
        world.release_all()


class TestSlurmThroughRest(BackendContract):
    @pytest.fixture
    def world(self, cluster: SlurmCluster) -> Iterator[RestWorld]:
        world = RestWorld(cluster)
        yield world
        world.release_all()
