"""The contract of backends on a real Ray cluster, and what goes wrong on one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from conftest import require
from contract.ray_world import RayWorld
from spillway.backends.protocol import Connection
from spillway.backends.ray_jobs.backend import RayBackend
from spillway.backends.ray_jobs.client import JobsClient
from spillway.checkpoints import open_store
from spillway.errors import AccessError, RejectedError, TransientError
from spillway.model import JobEvent, Launcher, Resources
from spillway.runtime.exchange import read_result
from spillway.testing.backend_suite import BackendContract, Behaviour
from spillway.testing.ray_cluster import is_installed, ray_cluster
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spillway.backends.ray_jobs.parse import JobRow
    from spillway.model import Submission
    from spillway.testing.ray_cluster import RayCluster

STARTED = frozenset({JobEvent.STARTED})


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    require(is_installed(), "Ray is not installed: pip install 'spillway[ray]'")
    with ray_cluster(cpus=8) as cluster:
        yield cluster


@pytest.fixture
def world(cluster: RayCluster) -> Iterator[RayWorld]:
    world = RayWorld(cluster)
    yield world
    world.release_all()


class TestRay(BackendContract):
    pass


class BlindClient(JobsClient):
    """A client that looked just before somebody else submitted."""

    def jobs(self) -> list[JobRow]:
        return []


def test_of_two_submissions_at_once_the_later_finds_the_first(world: RayWorld) -> None:
    """Ray answers 500 to a submission id that it knows."""
    submission = world.submission(Behaviour.RUNS_ON)
    first = world.connect().submit(submission)
    assert (
        world.connect(BlindClient(world.connection(), timeout_seconds=60)).submit(submission)
        == first
    )
    assert list(world.connect().list_jobs()) == [first]


def test_a_wrong_token_is_told_from_a_missing_job(world: RayWorld) -> None:
    other = world.connect()
    for password in ("an old one", None):
        connection = Connection(host=world.cluster.url, password=password)
        backend = world.connect(JobsClient(connection))
        with pytest.raises(AccessError, match="set the connection's password"):
            backend.submit(world.submission(Behaviour.SUCCEEDS))
        assert other.list_jobs() == []  # tokens are of a connection, not of the process


def test_a_cluster_that_does_not_answer_says_nothing_of_its_jobs(world: RayWorld) -> None:
    job = world.connect().submit(world.submission(Behaviour.RUNS_ON))
    backend = world.connect(JobsClient(Connection(host="127.0.0.1", port=free_port())))
    with pytest.raises(TransientError, match="did not answer"):
        backend.observe([job])


@pytest.mark.parametrize(
    ("option", "told", "there"),
    [
        ("ray_version", "2.40.0", r"Ray 2\.\d+.*option ray_version"),
        ("python_version", "3.9", r"Python 3\.\d+.*option python_version"),
    ],
)
def test_versions_that_differ_are_told_before_anything_is_placed(
    cluster: RayCluster, option: str, told: str, there: str
) -> None:
    world = RayWorld(cluster, **{option: told})
    with pytest.raises(RejectedError, match=rf"{there}.*says {told}"):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))
    assert not world.connect().list_jobs()


def test_what_no_node_has_waits_and_says_so(cluster: RayCluster) -> None:
    world = RayWorld(cluster, start_within="PT30S")
    large = Resources(cpus=1000)
    backend = world.connect(shape=large)
    assert backend.free_slots() == 0
    job = backend.submit(replace(world.submission(Behaviour.SUCCEEDS), resources=large))
    seen = backend.observe([job])[job.key]
    assert seen.event is JobEvent.SUBMITTED
    assert "waiting for resources" in seen.detail
    later = RayBackend(
        world.pool(large),
        home=cluster.folder,
        connection=world.connection(),
        clock=lambda: datetime.now(UTC) + timedelta(seconds=60),
    )
    assert later.observe([job])[job.key].event is JobEvent.PREEMPTED


def test_the_working_tree_is_sent_with_the_job(cluster: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sent_along.py").write_text("def say(session): return 'from the tree'\n")
    world = RayWorld(cluster, working_dir=str(tmp_path / "code"))
    backend = world.connect()
    submission = world.job_of("sent_along:say")
    world.wait(backend, backend.submit(submission), frozenset({JobEvent.SUCCEEDED}))
    assert value_of(world, submission) == "from the tree"


def test_code_that_cannot_be_fetched_is_a_failure_with_a_remedy(cluster: RayCluster) -> None:
    world = RayWorld(cluster, working_dir="gcs://_ray_pkg_never_sent.zip")
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    assert "correct the options" in world.wait(backend, job).detail


def test_a_job_that_works_through_the_cluster_uses_the_one_that_is_there(world: RayWorld) -> None:
    backend = world.connect()
    submission = world.job_of(
        "ray_jobs:count_nodes", launcher=Launcher.RAY, nodes=2, resources=Resources(cpus=8)
    )
    job = backend.submit(submission)
    world.wait(backend, job, frozenset({JobEvent.SUCCEEDED}))
    assert value_of(world, submission) == {"cpus": 8}


def test_a_job_of_a_lost_node_is_told_from_one_that_failed(cluster: RayCluster) -> None:
    world = RayWorld(cluster, resources={"far": 1})
    cluster.start_node("far", cpus=2, resources='{"far": 2}')
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, job, STARTED)
    cluster.kill_node("far")
    seen = world.wait(backend, job)
    assert (seen.event, seen.exit_code) == (JobEvent.VANISHED, None), seen
    assert "its node has died" in seen.detail
    assert backend.read_log(job, 0).text == ""


def value_of(world: RayWorld, submission: Submission) -> object:
    result = read_result(open_store(world.store_url()), submission.prefix, submission.token)
    assert result is not None
    return result.value
