"""What happens to pods and on the way to the API server, on a fake cluster that lets it happen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from contract.kubernetes_world import KubernetesWorld, wait_for
from patience import PATIENCE_SECONDS
from spillway.backends.kubernetes import watch
from spillway.backends.kubernetes.failures import GoneError
from spillway.backends.kubernetes.kinds import KINDS
from spillway.checkpoints import latest, open_store
from spillway.errors import AccessError, BackendError, CapacityError, RejectedError, TransientError
from spillway.model import JobEvent, Resources
from spillway.runtime.exchange import read_result
from spillway.testing import kubernetes_objects
from spillway.testing.backend_suite import Behaviour
from spillway.testing.kubernetes_objects import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.backends.kubernetes.backend import KubernetesBackend
    from spillway.backends.protocol import Job

STARTED = frozenset({JobEvent.STARTED})
SUBMITTED = frozenset({JobEvent.SUBMITTED})


@pytest.fixture
def world(make_kubernetes_world: Callable[..., KubernetesWorld]) -> Iterator[KubernetesWorld]:
    world = make_kubernetes_world()
    yield world
    world.server.refuse = lambda _: None
    world.cluster.no_pods = ""
    world.release_all()


@pytest.fixture
def backend(world: KubernetesWorld) -> KubernetesBackend:
    return world.connect()


@pytest.fixture
def job(world: KubernetesWorld, backend: KubernetesBackend) -> Job:
    """A job that runs on."""
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, job, STARTED)
    return job


# ---- what takes pods away ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", ["PreemptionByScheduler", "EvictionByEvictionAPI", "DeletionByTaintManager"]
)
def test_a_pod_that_gives_way_is_preempted_and_says_to_what(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job, reason: str
) -> None:
    world.server.disrupt(world.pod_of(job), reason, "as it was asked")
    seen = world.wait(backend, job)
    assert seen.event is JobEvent.PREEMPTED
    assert reason in seen.detail


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("Terminated", "Pod was terminated in response to imminent node shutdown."),
        ("Evicted", "The node was low on resource: ephemeral-storage."),
    ],
    ids=["shutdown", "pressure"],
)
def test_a_node_that_shuts_down_or_runs_short_is_a_preemption(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job, reason: str, message: str
) -> None:
    world.cluster.kubelet.terminate(world.pod_of(job), reason=reason, message=message)
    seen = world.wait(backend, job)
    assert seen.event is JobEvent.PREEMPTED
    assert message in seen.detail


def test_a_node_that_is_gone_leaves_a_job_that_vanished(
    world: KubernetesWorld,
    backend: KubernetesBackend,
    job: Job,
) -> None:
    world.cluster.kubelet.lose_node(world.pod_of(job))
    seen = world.wait(backend, job)
    assert seen.event is JobEvent.VANISHED
    assert "node is gone" in seen.detail


def test_a_pod_that_somebody_deletes_goes_on_elsewhere(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    world = make_kubernetes_world(command=["/bin/sh", "-c", stubborn])
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(replace(submission, grace_period=submission.grace_period / 4))
    wait_for(lambda: "ready" in backend.read_log(job, 0).text)
    world.server.delete("pods", world.pod_of(job))
    seen = world.wait(backend, job)
    assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, 137)


def test_too_much_memory_is_a_failure_that_says_so(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job
) -> None:
    world.cluster.kubelet.run_out_of_memory(world.pod_of(job))
    seen = world.wait(backend, job)
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, 137)
    assert "raise memory_gib" in seen.detail


def test_a_notice_saves_a_checkpoint_and_ends_in_a_preemption(world: KubernetesWorld) -> None:
    never = str(world.folder / "gate")
    training = world.job_of("sample_jobs:train", steps=8, gate=never)
    submission = replace(training, grace_period=timedelta(minutes=1))
    backend = world.connect()
    job = backend.submit(submission)
    wait_for(lambda: "at the gate" in backend.read_log(job, 0).text)
    world.server.disrupt(world.pod_of(job), "PreemptionByScheduler", "preempting")
    seen = world.wait(backend, job)
    assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, 75)
    found = latest(open_store(submission.store), submission.prefix)
    assert found is not None
    assert found.manifest.step == 4


def test_a_job_that_failed_is_not_started_again(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job
) -> None:
    world.server.disrupt(world.pod_of(job), "EvictionByEvictionAPI", "drained")
    world.wait(backend, job)
    made = [
        one
        for one in world.server.all("pods")
        if one["metadata"]["labels"].get("spillway/job") == job.provider_id
    ]
    assert all(one["status"]["phase"] == "Failed" for one in made)
    assert list(world.connect().list_jobs()) == []


# ---- what keeps pods from starting ------------------------------------------------------------------------------


def test_a_shape_that_no_node_has_waits_and_says_why(world: KubernetesWorld) -> None:
    world.shape = Resources(accelerator="H100", accelerator_count=8)
    backend = world.connect()
    assert backend.free_slots() == 0
    job = backend.submit(replace(world.submission(Behaviour.SUCCEEDS), resources=world.shape))
    wait_for(lambda: "Unschedulable" in backend.observe([job])[job.key].detail)
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED


def test_a_job_that_does_not_start_in_time_gives_way(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(start_within="PT1S", node_selector={"pool": "none"})
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    seen = world.wait(backend, job)
    assert seen.event is JobEvent.PREEMPTED
    assert "has not started within" in seen.detail
    backend.release(job)
    assert list(backend.list_jobs()) == []


def test_an_image_that_is_not_there_waits_for_a_while(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(image="missing")
    world.cluster.kubelet.missing_images.add("missing")
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    wait_for(lambda: "ImagePullBackOff" in backend.observe([job])[job.key].detail)
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    backend.release(job)


def test_a_secret_that_is_not_there_fails_the_job_and_is_named(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(
        secret_environment={"TOKEN": {"secret": "absent", "key": "token"}}
    )
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    seen = world.wait(backend, job)
    assert seen.event is JobEvent.FAILED
    assert 'secret "absent" not found' in seen.detail
    backend.release(job)


def test_pods_that_a_quota_keeps_out_are_explained(world: KubernetesWorld) -> None:
    world.cluster.no_pods = 'pods "sw-0" is forbidden: exceeded quota: compute'
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    wait_for(lambda: "exceeded quota" in backend.observe([job])[job.key].detail)
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED


# ---- what is sent -----------------------------------------------------------------------------------------------


def test_what_is_sent_arrives_as_it_was(world: KubernetesWorld) -> None:
    arguments = {"text": "'\"$(PATH) $$(HOME) $$ ${HOME}\\ \n\u00e4\u20ac {x}"}
    submission = world.job_of("sample_jobs:echo", **arguments)
    backend = world.connect()
    job = backend.submit(submission)
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    result = read_result(open_store(submission.store), submission.prefix, submission.token)
    assert result is not None
    assert result.value == arguments


# ---- Kueue ------------------------------------------------------------------------------------------------------


def test_a_queue_admits_evicts_and_says_what_is_left(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(queue="ml", slots=5)
    quota = {"name": "spot", "resources": [{"name": "cpu", "nominalQuota": 3}]}
    group = {"coveredResources": ["cpu"], "flavors": [quota]}
    used = [{"name": "spot", "resources": [{"name": "cpu", "total": "1"}]}]
    world.server.add("localqueues", {"metadata": {"name": "ml"}, "spec": {"clusterQueue": "all"}})
    world.server.add(
        "clusterqueues",
        {
            "metadata": {"name": "all"},
            "spec": {"resourceGroups": [group]},
            "status": {"flavorsReservation": used},
        },
    )
    backend = world.connect()
    assert backend.free_slots() == 2
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    name = str(job.provider_id)
    wait_for(lambda: "JobSuspended" in backend.observe([job])[job.key].detail)
    world.server.update(
        "jobs", name, lambda one: one["spec"].update(suspend=False), manager="kueue"
    )
    world.wait(backend, job, STARTED)
    assert world.connect().submit(submission) == job
    owner = {"uid": world.server.one("jobs", name)["metadata"]["uid"]}  # type: ignore[index]
    evicted = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "for another"}
    world.server.add(
        "workloads",
        {
            "metadata": {"name": "job-1", "ownerReferences": [owner]},
            "status": {"conditions": [evicted]},
        },
    )
    seen = world.wait(backend, job)
    assert seen.event is JobEvent.PREEMPTED
    assert "Preempted: for another" in seen.detail
    backend.release(job)


def test_an_object_that_is_half_deleted_is_neither_live_nor_made_again(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job
) -> None:
    def begin_to_delete(one: dict[str, Any]) -> None:
        one["metadata"].update(
            deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["foregroundDeletion"]
        )

    world.server.update("jobs", str(job.provider_id), begin_to_delete)
    assert world.wait(backend, job).event is JobEvent.CANCELLED
    assert list(backend.list_jobs()) == []
    assert backend.submit(world.submission(Behaviour.RUNS_ON, key=job.key)) == job
    backend.release(job)
    world.server.remove("jobs", str(job.provider_id))


# ---- an old cluster ---------------------------------------------------------------------------------------------


@pytest.fixture
def old(world: KubernetesWorld) -> Iterator[KubernetesWorld]:
    world.server.minor = 20
    yield world
    world.server.minor = 34


def test_an_old_cluster_is_sent_nothing_that_it_does_not_know(old: KubernetesWorld) -> None:
    backend = old.connect()
    ends = [JobEvent.SUCCEEDED, JobEvent.FAILED, JobEvent.PREEMPTED]
    behaviours = [Behaviour.SUCCEEDS, Behaviour.FAILS_WITH_3, Behaviour.IS_PREEMPTED]
    for behaviour, end in zip(behaviours, ends, strict=True):
        assert old.wait(backend, backend.submit(old.submission(behaviour))).event is end


def test_what_an_old_cluster_cannot_run_is_named(old: KubernetesWorld) -> None:
    gang = replace(old.submission(Behaviour.MEETS), nodes=2)
    with pytest.raises(RejectedError, match=r"a gang .* 1\.22 or later, and the cluster is 1\.20"):
        old.connect().submit(gang)
    old.options["queue"] = "ml"
    single = old.submission(Behaviour.SUCCEEDS)
    with pytest.raises(RejectedError, match="option queue") as refusal:
        old.connect().submit(single)
    assert refusal.value.key == single.key


# ---- the way to the API server ----------------------------------------------------------------------------------


def test_a_thousand_looks_at_many_jobs_are_one_list_and_one_watch(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(slots=6)
    backend = world.connect()
    jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(4)]
    for job in jobs:
        world.wait(backend, job, STARTED)
    before = len(world.server.requests)
    for _ in range(1000):
        assert len(backend.observe(jobs)) == 4
    assert len(world.server.requests) - before <= 2  # a watch that was just due to be renewed
    world.release_all()


def test_room_is_counted_once_for_all_that_ask_and_anew_after_a_release(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job
) -> None:
    backend._room._seconds = PATIENCE_SECONDS
    backend.free_slots()
    before = len(world.server.requests)
    for _ in range(1000):
        assert backend.free_slots() > 0
        assert backend.room_said_at() is not None
    assert len(world.server.requests) - before <= 2  # a watch that was just due to be renewed
    backend.release(job)
    before = len(world.server.requests)
    backend.free_slots()
    assert {"nodes", "pods"} <= {one.plural for one in world.server.requests[before:]}


def test_a_history_that_is_forgotten_is_listed_anew(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job
) -> None:
    assert backend.observe([job])[job.key].event is JobEvent.STARTED
    world.server.forget_history()
    world.server.delete("pods", world.pod_of(job))
    assert world.wait(backend, job).event in {JobEvent.PREEMPTED, JobEvent.FAILED}


def test_silence_says_nothing_of_a_job(world: KubernetesWorld, job: Job) -> None:
    world.server.refuse = lambda _: Refusal(503, "ServiceUnavailable", "the server is starting")
    with pytest.raises(TransientError, match="503"):
        world.connect().observe([job])
    world.server.refuse = lambda _: None
    assert world.connect().observe([job])[job.key].event is JobEvent.STARTED


def test_another_process_is_told_that_it_was_a_preemption(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job
) -> None:
    pod = world.pod_of(job)
    world.server.disrupt(pod, "EvictionByEvictionAPI", "drained")
    wait_for(lambda: world.server.one("pods", pod) is None)
    assert world.wait(world.connect(), job).event is JobEvent.PREEMPTED


def test_news_that_is_too_old_is_asked_for(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backend.observe([job])[job.key].event is JobEvent.STARTED
    world.server.refuse = lambda _: Refusal(503, "ServiceUnavailable", "the server is starting")
    assert backend.observe([job])[job.key].event is JobEvent.STARTED  # from memory, for a while
    monkeypatch.setattr(watch, "MAX_SILENCE_SECONDS", -1.0)
    with pytest.raises(TransientError):
        backend.observe([job])


def test_a_mirror_that_nobody_reads_stops_to_watch(
    world: KubernetesWorld, backend: KubernetesBackend, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.observe([job])
    monkeypatch.setattr(watch, "IDLE_SECONDS", 0.0)
    wait_for(lambda: backend._pods._follower is None)
    assert backend.observe([job])[job.key].event is JobEvent.STARTED


@pytest.mark.parametrize(
    ("status", "kind"), [(410, GoneError), (403, AccessError), (503, TransientError)]
)
def test_a_watch_that_is_refused_is_sorted_by_what_to_do(
    world: KubernetesWorld, backend: KubernetesBackend, status: int, kind: type[Exception]
) -> None:
    world.server.refuse = lambda _: Refusal(status, "x", "as it says")
    with pytest.raises(kind, match="as it says"):
        next(backend._client.watch(KINDS["job"], "1"))
    with pytest.raises(BackendError, match="as it says"):
        backend._client.read_log("a-pod")


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong_ends_nothing(
    world: KubernetesWorld, backend: KubernetesBackend, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = datetime.now(UTC) + timedelta(hours=hours)  # of the server, and of what it stamps
    monkeypatch.setattr(kubernetes_objects, "now_of_server", lambda: clock)
    world.options.update(start_within="PT10M", node_selector={"pool": "none"})
    patient = world.connect()
    waiting = patient.submit(world.submission(Behaviour.SUCCEEDS))
    assert patient.observe([waiting])[waiting.key].event is JobEvent.SUBMITTED
    monkeypatch.setattr(kubernetes_objects, "now_of_server", lambda: clock + timedelta(minutes=11))
    seen = world.connect().observe([waiting])[waiting.key]
    assert seen.event is JobEvent.PREEMPTED
    assert abs(seen.seen_at - datetime.now(UTC)) < timedelta(minutes=1)  # by our own clock


def test_a_queue_that_is_not_there_is_named(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(queue="nope", room="slots")
    submission = world.submission(Behaviour.SUCCEEDS)
    with pytest.raises(RejectedError, match="no LocalQueue 'nope'") as refusal:
        world.connect().submit(submission)
    assert refusal.value.key == submission.key
    assert list(world.connect().list_jobs()) == []


def test_a_ray_cluster_that_is_not_there_is_named(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(kind="rayjob", ray_cluster="shared")
    backend = world.connect()
    submission = world.submission(Behaviour.SUCCEEDS)
    with pytest.raises(RejectedError, match="no RayCluster 'shared'") as refusal:
        backend.submit(submission)
    assert refusal.value.key == submission.key
    assert list(backend.list_jobs()) == []
    world.server.add("rayclusters", {"metadata": {"name": "shared"}})
    job = backend.submit(submission)
    made = world.server.one("rayjobs", str(job.provider_id))
    assert made is not None
    assert made["spec"]["clusterSelector"] == {"ray.io/cluster": "shared"}
    backend.release(job)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (403, 'jobs "x" is forbidden: exceeded quota: objects, used: 5, limited: 5', CapacityError),
        (403, 'admission webhook "policy" denied the request: no team label', RejectedError),
        (422, 'Job "x" is invalid: spec.template.spec.priorityClassName', RejectedError),
        (429, "too many requests", TransientError),
        (500, "etcdserver: leader changed", TransientError),
    ],
    ids=["quota", "webhook", "invalid", "throttled", "broken"],
)
def test_a_refused_submission_is_sorted_by_what_to_do(
    world: KubernetesWorld, status: int, message: str, kind: type[Exception]
) -> None:
    world.server.refuse = lambda request: (
        Refusal(status, "x", message) if request.method == "PATCH" else None
    )
    submission = world.submission(Behaviour.SUCCEEDS)
    with pytest.raises(kind) as refusal:
        world.connect().submit(submission)
    assert type(refusal.value) is kind
    assert message[:20] in str(refusal.value)
    world.server.refuse = lambda _: None
    assert list(world.connect().list_jobs()) == []


def test_a_kind_that_the_cluster_lacks_says_what_to_install(
    make_kubernetes_world: Callable[..., KubernetesWorld],
) -> None:
    world = make_kubernetes_world(kind="jobset")
    world.server.refuse = lambda request: (
        Refusal(404, "NotFound", "the server could not find the requested resource")
        if request.plural == "jobsets"
        else None
    )
    with pytest.raises(RejectedError, match="JobSet controller"):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))
    world.server.refuse = lambda _: None


def test_output_goes_on_where_it_was_read_by_whoever_reads(world: KubernetesWorld) -> None:
    backend = world.connect()
    job = backend.submit(world.job_of("sample_jobs:train", steps=8, gate=str(world.folder / "g")))
    wait_for(lambda: "at the gate" in backend.read_log(job, 0).text)
    first = backend.read_log(job, 0)
    (world.folder / "g").touch()
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    whole = world.connect().read_log(job, 0).text
    for reader in (backend, world.connect()):
        assert first.text + reader.read_log(job, first.next_offset).text == whole


def test_two_that_submit_at_once_start_one(world: KubernetesWorld) -> None:
    submission = world.submission(Behaviour.RUNS_ON)
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: world.connect().submit(submission), range(4)))
    assert len(set(jobs)) == 1
    assert list(world.connect().list_jobs()) == [jobs[0]]
