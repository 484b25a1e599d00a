"""The contract of backends on a real Slurm cluster, through the REST API and through the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conftest import require
from contract.slurm_world import RestWorld, SlurmWorld
from spillway.testing.backend_suite import BackendContract
from spillway.testing.slurm_cluster import INSTALL, missing_programs, slurm_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.testing.slurm_cluster import SlurmCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    missing = missing_programs()
    require(not missing, f"{', '.join(missing)} not installed: {INSTALL}")
    with slurm_cluster() as cluster:
        yield cluster


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
