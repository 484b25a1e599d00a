"""The Slurm backend on a real cluster, through the REST API and through the commands."""

from __future__ import annotations

import sys
import time
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import require
from spillway.backends.protocol import Connection
from spillway.backends.slurm.backend import SlurmBackend
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import BackendContract, Behaviour, World
from spillway.testing.slurm_cluster import INSTALL, missing_programs, slurm_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation
    from spillway.testing.slurm_cluster import SlurmCluster

ENTRY_POINTS = Path(__file__).parent.parent / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.IS_PREEMPTED: "preempt_itself",
}
PATIENCE_SECONDS = 60.0


class SlurmWorld(World):
    """A pool of its own on the cluster, so that tests do not see each other's jobs."""

    def __init__(self, cluster: SlurmCluster) -> None:
        self.cluster = cluster
        self.name = f"contract-{uuid.uuid4().hex}"

    def pool(self, **options: Any) -> Pool:
        return Pool(
            name=self.name,
            backend="slurm",
            market=Market.PARTNER,
            slots=self.slots,
            shape=Resources(),
            list_usd_per_hour=Decimal(1),
            options={
                "folder": str(self.cluster.jobs),
                "folder_here": str(self.cluster.jobs),
                "partition": "scavenge",
                "python": sys.executable,
                "environment": {"PYTHONPATH": str(ENTRY_POINTS)},
                "slurm_conf": str(self.cluster.conf),
                **options,
            },
        )

    def connection(self) -> Connection | None:
        return None

    def connect(self) -> SlurmBackend:
        return SlurmBackend(self.pool(), home=self.cluster.folder, connection=self.connection())

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Any:
        from dataclasses import replace

        return replace(super().submission(behaviour, key), pool=self.name)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.cluster.folder / "store").as_uri()

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent]) -> Observation:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (seen := backend.observe([job])[job.key]).event not in events:
            assert time.monotonic() < deadline, f"{job.key} is still {seen}"
            time.sleep(0.1)
        return seen

    def release_all(self) -> None:
        backend = self.connect()
        for job in backend.list_jobs():
            backend.release(job)


class RestWorld(SlurmWorld):
    def connection(self) -> Connection:
        token = self.cluster.token()
        return Connection(host=self.cluster.rest_url, login=self.cluster.user, password=token)


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
