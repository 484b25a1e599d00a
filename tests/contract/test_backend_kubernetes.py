"""The contract of backends on a Kubernetes cluster, by Jobs, JobSets and RayJobs.

On a fake cluster, or in a namespace of the real one that `SPILLWAY_TEST_KUBECONFIG` names. Where that has no nodes, we are
one if its user may; what cannot be shown on it is skipped, with the reason.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client as kubernetes_client
from kubernetes.client.exceptions import ApiException

from contract.in_shell import IN_SHELL
from contract.kubernetes_real import VARIABLE, RealWorld
from contract.kubernetes_world import KubernetesWorld, wait_for
from contract.kubernetes_worlds import world_by_hand, worlds
from spillway.backends.kubernetes.failures import ConflictError
from spillway.backends.kubernetes.kinds import KINDS
from spillway.backends.kubernetes.options import read_options
from spillway.backends.kubernetes.render import render
from spillway.backends.protocol import Job
from spillway.checkpoints import open_store
from spillway.errors import AccessError, RejectedError
from spillway.model import JobEvent, Launcher, Resources
from spillway.runtime.exchange import read_result
from spillway.testing.backend_suite import BackendContract, Behaviour, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from spillway.backends.kubernetes.backend import KubernetesBackend
    from spillway.backends.protocol import Backend
    from spillway.model import Submission

STARTED = frozenset({JobEvent.STARTED})
POLICY_SINCE = 22
"""Which Kubernetes 1 evicts by `policy/v1`."""

needs_fake = pytest.mark.skipif(
    VARIABLE in os.environ,
    reason="the cluster may have neither JobSet nor KubeRay",
)


@pytest.fixture(scope="module")
def make_world(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., KubernetesWorld]]:
    with worlds(tmp_path_factory.mktemp("kubernetes")) as make:
        yield make


@pytest.fixture
def world(make_world: Callable[..., KubernetesWorld]) -> Iterator[KubernetesWorld]:
    world = make_world()
    yield world
    world.release_all()


class TestKubernetesJobs(BackendContract):
    @pytest.fixture
    def world(self, make_world: Callable[..., KubernetesWorld]) -> Iterator[KubernetesWorld]:
        world = make_world()
        if world.pods().nobody:
            pytest.skip(world.pods().nobody)
        yield world
        world.release_all()

    def test_output_is_read_on_from_an_offset(self, world: World, backend: Backend) -> None:
        assert isinstance(world, KubernetesWorld)
        if not world.pods().shows_output:
            pytest.skip("the API server is on another machine, and cannot ask us for output")
        super().test_output_is_read_on_from_an_offset(world, backend)


@needs_fake
class TestKubernetesJobSets(BackendContract):
    """With pods of shell, which cost nothing beside their kind; `test_every_kind_ends_as_its_pods_do` has ours."""

    @pytest.fixture
    def world(self, make_world: Callable[..., KubernetesWorld]) -> Iterator[KubernetesWorld]:
        world = make_world(kind="jobset", command=["/bin/sh", "-c", IN_SHELL])
        yield world
        world.release_all()


@needs_fake
class TestKubernetesRayJobs(BackendContract):
    """The same; Ray spans the nodes of a RayJob."""

    @pytest.fixture
    def world(self, make_world: Callable[..., KubernetesWorld]) -> Iterator[KubernetesWorld]:
        world = make_world(kind="rayjob", command=["/bin/sh", "-c", IN_SHELL])
        yield world
        world.release_all()

    def test_the_nodes_of_a_gang_meet_and_end_as_one_job(
        self, world: World, backend: Backend
    ) -> None:
        del world, backend
        pytest.skip("a RayJob has one driver, on whose cluster Ray spans the nodes: nobody meets")


# ---- what needs an API server only ------------------------------------------------------------------------------


def test_what_is_applied_twice_is_there_once(world: KubernetesWorld) -> None:
    submission = world.submission(Behaviour.RUNS_ON)
    backend = world.connect()
    job = backend.submit(submission)
    assert world.connect().submit(submission) == job
    assert list(backend.list_jobs()) == [job]
    assert backend.observe([job])[job.key].event in {JobEvent.SUBMITTED, JobEvent.STARTED, None}


def test_the_schema_has_every_field_that_is_sent(
    make_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_world(
        service_account="default",
        node_selector={"pool": "none-has-this"},
        tolerations=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
        volumes=[{"path": "/shared", "claim": "shared"}, {"path": "/data", "host_path": "/data"}],
        scratch_gib=1,
        shared_memory_gib=0.5,
        secret_environment={"TOKEN": {"secret": "store", "key": "token"}},
        secrets=["store"],
        image_pull_secrets=["registry"],
        image_pull_policy="IfNotPresent",
    )
    one = world.submission(Behaviour.RUNS_ON)
    gang = replace(one, nodes=2 if world.gangs else 1)
    accelerated = replace(gang.resources, accelerator="H100", accelerator_count=8)
    backend = world.connect()
    job = backend.submit(replace(gang, resources=accelerated))
    backend.release(job)


def test_what_is_deleted_has_vanished(world: KubernetesWorld) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.observe([job])[job.key].event is not JobEvent.VANISHED
    world.connect().release(job)
    gone = {JobEvent.VANISHED, JobEvent.CANCELLED}
    wait_for(lambda: backend.observe([job])[job.key].event in gone)


def test_what_somebody_else_has_changed_is_found_and_not_fought_over(
    make_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_world(labels={"team": "vision"})
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    ours = manifest_of(world, backend, submission)
    labels = {**ours["metadata"]["labels"], "team": "audio"}
    theirs = {**ours, "metadata": {**ours["metadata"], "labels": labels}}
    apply_as("somebody", world, theirs)
    with pytest.raises(
        ConflictError, match=r'conflicts? with "somebody":.*\.metadata\.labels\.team'
    ):
        backend._client.apply(KINDS["job"], ours)
    assert backend._apply(str(job.provider_id), ours)["metadata"]["labels"]["team"] == "audio"
    assert world.connect().submit(submission) == job
    backend.release(job)


def test_a_job_is_not_changed_once_it_is_there(world: KubernetesWorld) -> None:
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    there = backend._client.get(KINDS["job"], str(job.provider_id))
    assert there is not None
    world.options["image"] = "a-newer-one"
    assert world.connect().submit(submission) == job
    with pytest.raises(RejectedError, match=r"is invalid: spec\.template"):
        backend._client.apply(KINDS["job"], manifest_of(world, backend, submission))
    now = backend._client.get(KINDS["job"], str(job.provider_id))
    assert now is not None
    assert now["spec"]["template"] == there["spec"]["template"]


def manifest_of(
    world: KubernetesWorld, backend: KubernetesBackend, submission: Submission
) -> dict[str, Any]:
    options = read_options(world.pool(), world.connection())
    return render(submission, options, minor=backend._minor_version())


def apply_as(manager: str, world: KubernetesWorld, manifest: dict[str, Any]) -> None:
    """Apply the Job in somebody else's name, who insists."""
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    path, content_type = KINDS["job"].path(namespace, name), "application/apply-patch+yaml"
    world.call("PATCH", path, manifest, content_type, fieldManager=manager, force="true")


def test_a_pod_that_is_evicted_is_a_preemption(
    make_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_world(command=["/bin/sh", "-c", "exec sleep 600"])
    if world.pods().nobody:
        pytest.skip(world.pods().nobody)
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, job, STARTED)
    namespace = world.options.get("namespace", "default")
    core = kubernetes_client.CoreV1Api(world.connection().client)
    selector = f"spillway/job={job.provider_id}"
    (pod,) = core.list_namespaced_pod(namespace, label_selector=selector).items
    minor = backend._minor_version()
    assert minor is not None
    version = "policy/v1" if minor >= POLICY_SINCE else "policy/v1beta1"
    body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": pod.metadata.name}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod.metadata.name}/eviction"
    world.call("POST", path, body)
    assert world.wait(backend, job).event is JobEvent.PREEMPTED
    backend.release(job)


def test_wrong_credentials_are_told_from_a_missing_job(world: KubernetesWorld) -> None:
    backend = world.connect(token="an old one")
    # Where no tokens are known at all, who brings one is nobody, and may do nothing.
    with pytest.raises(AccessError, match=r"renew the credentials|let the connection's user"):
        backend.observe([Job(key="d/r/t/-1/1")])


def test_a_namespace_that_is_not_there_is_named(
    make_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_world(namespace="no-such-namespace")
    submission = world.submission(Behaviour.SUCCEEDS)
    # Who may do nothing outside of a namespace is told that instead.
    with pytest.raises((RejectedError, AccessError), match="no-such-namespace") as refusal:
        world.connect().submit(submission)
    assert refusal.value.key == submission.key


def test_news_of_pods_arrives_by_itself(
    tmp_path: Path, make_world: Callable[..., KubernetesWorld]
) -> None:
    there = make_world()
    is_real = isinstance(there, RealWorld)
    if is_real and there.pods().is_cluster:
        pytest.skip("the cluster says itself how its pods are")
    say = partial(_say, makes_pod=not (is_real and there.pods().is_controlled))
    with world_by_hand(tmp_path, make_world) as world:
        backend = world.connect()
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
        say(world, job, phase="Running")
        world.wait(backend, job, STARTED)
        told = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        state = {"terminated": {"exitCode": 143, "reason": "Error"}}
        container = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
        say(
            world,
            job,
            phase="Failed",
            conditions=[told],
            containerStatuses=[{**container, "state": state}],
        )
        seen = world.wait(backend, job)
        assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, 143)
        assert "PreemptionByScheduler" in seen.detail
        backend.release(job)


def _say(world: KubernetesWorld, job: Job, **status: Any) -> None:
    try:
        world.set_pod_status(job, **status)
    except ApiException as error:
        if error.status != 403:
            raise
        world.release_all()
        pytest.skip(f"the user may not say how pods are: {error.body}")


# ---- the other kinds --------------------------------------------------------------------------------------------


@needs_fake
@pytest.mark.parametrize("kind", ["jobset", "rayjob"])
def test_every_kind_ends_as_its_pods_do(
    make_world: Callable[..., KubernetesWorld], kind: str
) -> None:
    world = make_world(kind=kind, slots=4)
    backend = world.connect()
    wanted = {
        Behaviour.SUCCEEDS: (JobEvent.SUCCEEDED, 0),
        Behaviour.FAILS_WITH_3: (JobEvent.FAILED, 3),
        Behaviour.IS_PREEMPTED: (JobEvent.PREEMPTED, 75),
    }
    jobs = {behaviour: backend.submit(world.submission(behaviour)) for behaviour in wanted}
    for behaviour, (event, code) in wanted.items():
        seen = world.wait(backend, jobs[behaviour])
        assert (seen.event, seen.exit_code) == (event, code), behaviour
    assert list(backend.list_jobs()) == []


@needs_fake
@pytest.mark.parametrize("kind", ["jobset", "rayjob"])
def test_every_kind_stops_when_it_is_released(
    make_world: Callable[..., KubernetesWorld], kind: str
) -> None:
    world = make_world(kind=kind)
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    world.wait(backend, job, STARTED)
    assert world.connect().submit(submission) == job
    assert list(backend.list_jobs()) == [job]
    pod = world.pod_of(job)
    backend.release(job)
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED
    wait_for(lambda: world.server.one("pods", pod) is None)


@needs_fake
def test_ray_spans_the_nodes_of_a_jobset(make_world: Callable[..., KubernetesWorld]) -> None:
    world = make_world(kind="jobset")
    backend = world.connect()
    one_cpu = Resources(cpus=1)
    gang = replace(
        world.submission(Behaviour.SUCCEEDS),
        entry_point="ray_jobs:count_nodes",
        nodes=2,
        launcher=Launcher.RAY,
        resources=one_cpu,
    )
    job = backend.submit(gang)
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED, backend.read_log(job, 0).text
    result = read_result(open_store(gang.store), gang.prefix, gang.token)
    assert result is not None
    assert result.value == {"cpus": 2}
