"""The pools of `make demo-wide` hold as they are written, with Slurm and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spillway.backends import registry
from spillway.catalog.pools_file import load_pools
from spillway.demo.wide import render_pools
from spillway.testing.slurm_cluster import SlurmCluster
from spillway.workloads.sizes import SIZES

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.model import Pool


def pools_of(tmp_path: Path, size: str, cluster: SlurmCluster | None) -> tuple[Pool, ...]:
    path = tmp_path / "pools.yaml"
    path.write_text(render_pools(SIZES[size], cluster), encoding="utf-8")
    return load_pools(path, {"demo_ray", "demo_slurm"}, backends=registry.names())


@pytest.mark.parametrize("size", SIZES)
def test_without_slurm_there_is_no_pool_of_it(tmp_path: Path, size: str) -> None:
    assert {pool.backend for pool in pools_of(tmp_path, size, None)} == {"local", "ray"}


def test_the_folder_of_jobs_is_the_clusters(tmp_path: Path) -> None:
    folder = tmp_path / "a folder: with {odd} characters"
    cluster = SlurmCluster(folder=folder, environment={}, rest_url="", user="")
    pools = pools_of(tmp_path, "small", cluster)
    assert {pool.backend for pool in pools} == {"local", "ray", "slurm"}
    assert pools[-1].options["folder"] == str(cluster.jobs)
