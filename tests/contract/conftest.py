"""Servers with buckets, one of each kind for the session; and a Slurm cluster."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import require
from contract.kubernetes_real import VARIABLE
from contract.kubernetes_world import TOKEN, KubernetesWorld
from patience import PATIENCE_SECONDS
from spillway.testing.bucket_servers import azure_server, gcs_bucket, s3_server
from spillway.testing.ceph_server import ceph_server, has_ceph
from spillway.testing.kubernetes_cluster import fake_kubernetes
from spillway.testing.slurm_cluster import INSTALL, missing_programs, slurm_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.testing.bucket_servers import BucketServer
    from spillway.testing.slurm_cluster import SlurmCluster

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
AZURITE = REPOSITORY / "build" / "azurite"

collect_ignore = [] if os.environ.get(VARIABLE) else ["test_kubernetes_kinds.py"]
"""Tests of what only a real API server can show, where none was named."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test wait for several things in a row, each as long as its patience lasts."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(3 * PATIENCE_SECONDS))


@pytest.fixture(scope="module")
def make_kubernetes_world(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., KubernetesWorld]]:
    """Makes worlds on one fake cluster, each with options of its own."""
    folder = tmp_path_factory.mktemp("kubernetes")
    with fake_kubernetes(folder, token=TOKEN) as (url, server, cluster):
        yield lambda **options: KubernetesWorld(folder, url, server, cluster, **options)


@pytest.fixture(scope="package")
def s3() -> Iterator[BucketServer]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="package")
def gcs() -> Iterator[BucketServer]:
    with gcs_bucket() as server:
        yield server


@pytest.fixture(scope="package")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    setup = REPOSITORY / ".ci" / "azurite" / "setup"
    done = subprocess.run([setup], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{setup} could not install azurite from npm: {done.stderr}")
    with azure_server(AZURITE, tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="package")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    require(
        has_ceph(), "no Ceph is installed: apt-get install radosgw ceph-mon ceph-osd ceph-common"
    )
    with ceph_server(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture(scope="package")
def cluster() -> Iterator[SlurmCluster]:
    missing = missing_programs()
    require(not missing, f"{', '.join(missing)} not installed: {INSTALL}")
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture
def fresh_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[BucketServer], str]:
    """Returns the URL of an empty folder of a server, whose credentials are in the environment then."""

    def of(server: BucketServer) -> str:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        return server.url(uuid.uuid4().hex)

    return of
