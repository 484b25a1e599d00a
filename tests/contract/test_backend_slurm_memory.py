"""A job of a real Slurm cluster that uses more memory than it asked for, where control groups hold it to that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from conftest import require
from contract.slurm_world import RestWorld, SlurmWorld
from spillway.model import JobEvent, Resources
from spillway.testing.slurm_cluster import (
    INSTALL,
    can_limit_memory,
    missing_programs,
    slurm_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.testing.slurm_cluster import SlurmCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    missing = missing_programs()
    require(not missing, f"{', '.join(missing)} not installed: {INSTALL}")
    require(can_limit_memory(), "this is not root of a machine with control groups of version 1")
    with slurm_cluster(limits_memory=True) as cluster:
        yield cluster


@pytest.mark.parametrize("kind", [RestWorld, SlurmWorld])
def test_too_much_memory_is_a_failure_that_says_so(
    cluster: SlurmCluster, kind: type[SlurmWorld]
) -> None:
    world = kind(cluster)
    backend = world.connect()
    greedy = world.job_of("slurm_jobs:use_memory", mib=1024)
    job = backend.submit(replace(greedy, resources=Resources(memory_gib=0.25)))
    seen = world.wait(backend, job)
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, 137)
    assert "if its output says Out Of Memory, raise memory_gib" in seen.detail
    assert "Out Of Memory" in backend.read_log(job, 0).text
