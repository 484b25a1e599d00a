"""What the connection's user has to be allowed, and where its token and other secrets are not; on a fake cluster."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from contract.in_shell import IN_SHELL
from contract.kubernetes_world import KubernetesWorld, wait_for
from spillway.checkpoints import open_store
from spillway.errors import AccessError
from spillway.model import JobEvent
from spillway.runtime.exchange import read_result
from spillway.testing.backend_suite import Behaviour
from spillway.testing.kubernetes_objects import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.testing.kubernetes_server import FakeApiServer

PAGE = Path(__file__).parents[2] / "docs" / "backends" / "kubernetes.md"
_, ROLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
RIGHTS = frozenset(
    (verb, resource)
    for role in yaml.safe_load_all(ROLES)
    for rule in role["rules"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
)
ROBOT = "the token of a robot"
STARTED = frozenset({JobEvent.STARTED})


@pytest.fixture
def world(make_kubernetes_world: Callable[..., KubernetesWorld]) -> Iterator[KubernetesWorld]:
    world = make_kubernetes_world()
    yield world
    world.release_all()


@pytest.fixture(scope="module")
def server(make_kubernetes_world: Callable[..., KubernetesWorld]) -> FakeApiServer:
    """One on which jobs of every kind have lived, with the documented rights and no others."""
    server = make_kubernetes_world().server
    server.allowed[ROBOT] = RIGHTS
    for kind, nodes in (("job", 2), ("jobset", 1), ("rayjob", 1)):
        live(make_kubernetes_world(kind=kind, command=["/bin/sh", "-c", IN_SHELL]), nodes=nodes)
    server.add("rayclusters", {"metadata": {"name": "shared"}})
    wait_in_line(make_kubernetes_world(kind="rayjob", ray_cluster="shared"))
    server.add("localqueues", {"metadata": {"name": "ml"}, "spec": {"clusterQueue": "all"}})
    quota = {"name": "spot", "resources": [{"name": "cpu", "nominalQuota": 3}]}
    group = {"coveredResources": ["cpu"], "flavors": [quota]}
    server.add("clusterqueues", {"metadata": {"name": "all"}, "spec": {"resourceGroups": [group]}})
    wait_in_line(make_kubernetes_world(queue="ml"))
    return server


def live(world: KubernetesWorld, *, nodes: int) -> None:
    """Have a job begin, be looked at in every way, and end."""
    backend = world.connect(ROBOT)
    assert backend.free_slots() == world.slots
    job = backend.submit(replace(world.submission(Behaviour.RUNS_ON), nodes=nodes))
    world.wait(backend, job, STARTED)
    assert list(backend.list_jobs()) == [job]
    assert backend.read_log(job, 0).text == ""
    backend.release(job)
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED


def wait_in_line(world: KubernetesWorld) -> None:
    """Have a job that nobody starts."""
    backend = world.connect(ROBOT)
    assert backend.free_slots() == world.slots
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    backend.release(job)


def test_the_roles_are_all_that_it_needs_and_nothing_more(server: FakeApiServer) -> None:
    wait_for(lambda: server.needed[ROBOT] >= RIGHTS)  # some watches begin in the background
    assert server.needed[ROBOT] == RIGHTS


def test_the_token_is_in_nothing_that_was_made(server: FakeApiServer) -> None:
    sent = [request.body for request in server.requests if request.token == ROBOT]
    there = [one for plural in KINDS for one in server.all(plural)]
    assert "RayJob" in json.dumps(sent)
    assert ROBOT not in json.dumps([sent, there])


def test_a_missing_permission_is_named(world: KubernetesWorld) -> None:
    world.server.allowed[ROBOT] = frozenset({("get", "jobs"), ("list", "jobs")})
    with pytest.raises(AccessError, match="patch jobs in default"):
        world.connect(ROBOT).submit(world.submission(Behaviour.SUCCEEDS))


def test_a_secret_reaches_the_job_and_nothing_else(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(
        secret_environment={"STORE_TOKEN": {"secret": "store", "key": "token"}}
    )
    data = {"token": base64.b64encode(b"a secret").decode()}
    world.server.add("secrets", {"metadata": {"name": "store"}, "data": data})
    submission = world.job_of("sample_jobs:show_environment")
    backend = world.connect()
    job = backend.submit(submission)
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    result = read_result(open_store(submission.store), submission.prefix, submission.token)
    assert result is not None
    assert result.value["STORE_TOKEN"] == "a secret"  # type: ignore[index,call-overload]
    assert "a secret" not in str(world.server.one("jobs", str(job.provider_id)))
