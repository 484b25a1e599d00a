"""What happens to jobs of a real Slurm cluster: preempted, forgotten, refused, left running on a node that is lost."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from conftest import require
from contract.in_shell import IN_SHELL
from contract.slurm_world import RestWorld, SlurmWorld, wait_for
from spillway.backends.slurm.backend import SlurmBackend
from spillway.backends.slurm.command_line import CommandLine
from spillway.backends.slurm.options import read_options
from spillway.backends.slurm.shells import LocalShell
from spillway.checkpoints import claim, latest, open_store
from spillway.errors import AccessError, BackendError, RejectedError, TransientError
from spillway.model import JobEvent, Launcher, Resources
from spillway.runtime.exchange import read_result
from spillway.testing.backend_suite import TEXT, Behaviour
from spillway.testing.servers import free_port
from spillway.testing.slurm_cluster import NODES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spillway.backends.protocol import Connection
    from spillway.testing.slurm_cluster import SlurmCluster

STARTED = frozenset({JobEvent.STARTED})
WHOLE_NODE = Resources(cpus=8)
HALF_NODE = Resources(cpus=4)
BOTH_WAYS = (RestWorld, SlurmWorld)


@pytest.fixture
def world(cluster: SlurmCluster) -> Iterator[SlurmWorld]:
    world = SlurmWorld(cluster)
    yield world
    world.release_all()


@contextmanager
def somebody_more_important(cluster: SlurmCluster) -> Iterator[None]:
    """Have a job of the partition that goes first take every node."""
    command = ("sbatch", "--parsable", "--partition=reserved", "--output=/dev/null", "--mem=10")
    wanted = (
        f"--nodes={len(NODES)}",
        "--ntasks-per-node=1",
        "--cpus-per-task=8",
        "--wrap=sleep 600",
    )
    job_id = cluster.run(*command, *wanted).strip()
    try:
        yield
    finally:
        cluster.run("scancel", "--signal=KILL", "--full", job_id)
        cluster.run("scancel", job_id)
        wait_for(lambda: not cluster.run("squeue", "-h", "-j", job_id, "-t", "R,CG").strip())


def test_a_notice_saves_a_checkpoint_and_ends_in_a_preemption(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    never = str(tmp_path / "gate")
    running = []
    for world in [kind(cluster) for kind in BOTH_WAYS]:
        training = world.job_of("sample_jobs:train", steps=8, gate=never)
        submission = replace(training, resources=WHOLE_NODE, grace_period=timedelta(minutes=1))
        backend = world.connect()
        running.append((world, backend, submission, backend.submit(submission)))
    for _, backend, _, job in running:
        wait_for(lambda: "at the gate" in backend.read_log(job, 0).text)  # noqa: B023  # called here
    with somebody_more_important(cluster):
        for world, backend, _, job in running:
            assert world.wait(backend, job).event is JobEvent.PREEMPTED
    for _, backend, submission, job in running:
        assert "Exited with exit code 75" in backend.read_log(job, 0).text
        found = latest(open_store(submission.store), submission.prefix)
        assert found is not None
        assert found.manifest.step == 4


def test_a_job_that_is_killed_for_another_is_preempted_and_not_run_again(
    cluster: SlurmCluster,
) -> None:
    partitions = ("cancels", "requeues")
    worlds = [kind(cluster, partition=name) for kind in BOTH_WAYS for name in partitions]
    backends = [world.connect() for world in worlds]
    jobs = []
    for world, backend in zip(worlds, backends, strict=True):
        stubborn = world.job_of("sample_jobs:ignore_everything")
        jobs.append(backend.submit(replace(stubborn, resources=HALF_NODE)))
        world.wait(backend, jobs[-1], STARTED)
    with somebody_more_important(cluster):
        for world, backend, job in zip(worlds, backends, jobs, strict=True):
            assert world.wait(backend, job).event is JobEvent.PREEMPTED
    for backend in backends:
        assert list(backend.list_jobs()) == []


def test_somebody_elses_scancel_is_no_failure(cluster: SlurmCluster, world: SlurmWorld) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, job, STARTED)
    cluster.run("scancel", str(job.provider_id))
    assert world.wait(backend, job).event is JobEvent.CANCELLED


def test_the_time_limit_is_told_before_it_ends_the_job(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    never = str(tmp_path / "gate")
    worlds = [kind(cluster, time_limit="PT1M", notice="PT59S") for kind in BOTH_WAYS]
    backends = [world.connect() for world in worlds]
    jobs = [
        backend.submit(world.job_of("sample_jobs:train", steps=8, gate=never))
        for world, backend in zip(worlds, backends, strict=True)
    ]
    for world, backend, job in zip(worlds, backends, jobs, strict=True):
        seen = world.wait(backend, job)
        assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, 75)


def test_a_gang_starts_on_as_many_nodes_with_a_rank_each(world: SlurmWorld, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.mkdir()
    backend = world.connect()
    gang = world.job_of("slurm_jobs:say_where", folder=str(said))
    job = backend.submit(replace(gang, nodes=2, resources=WHOLE_NODE))
    assert backend.free_slots() == 0
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED, backend.read_log(job, 0).text
    members = [path.read_text().split() for path in sorted(said.iterdir())]
    assert [(rank, nodes) for rank, nodes, _ in members] == [("0", "2"), ("1", "2")]
    assert len({node for _, _, node in members}) == 2


def test_ray_spans_the_nodes_of_a_gang(world: SlurmWorld) -> None:
    backend = world.connect()
    gang = replace(
        world.job_of("ray_jobs:count_nodes"),
        nodes=2,
        launcher=Launcher.RAY,
        resources=Resources(cpus=1),
    )
    job = backend.submit(gang)
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED, backend.read_log(job, 0).text
    result = read_result(open_store(gang.store), gang.prefix, gang.token)
    assert result is not None
    assert result.value == {"cpus": 2}


@pytest.mark.parametrize("kind", [RestWorld, SlurmWorld])
def test_a_job_sees_the_accelerators_that_it_asked_for(
    cluster: SlurmCluster, kind: type[SlurmWorld]
) -> None:
    device = cluster.folder / "dev" / "h100-0"
    require(device.is_char_device(), "this user may not make device nodes, which accelerators are")
    world = kind(cluster)
    backend = world.connect()
    two = Resources(accelerator="H100", accelerator_count=2)
    printing = world.job_of("sample_jobs:print_variable", name="CUDA_VISIBLE_DEVICES")
    job = backend.submit(replace(printing, resources=two))
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    assert "0,1" in backend.read_log(job, 0).text.splitlines()


@pytest.mark.parametrize("kind", [RestWorld, SlurmWorld])
def test_what_is_sent_arrives_as_it_was(cluster: SlurmCluster, kind: type[SlurmWorld]) -> None:
    world = kind(cluster)
    backend = world.connect()
    arguments = {"text": "'\"$(exit 9)`exit 9`\\ ${HOME}\nEOF\n#SBATCH --hold\n\u00e4\u20ac {x} %j"}
    submission = world.job_of("sample_jobs:echo", **arguments)
    job = backend.submit(submission)
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    result = read_result(open_store(submission.store), submission.prefix, submission.token)
    assert result is not None
    assert result.value == arguments


def test_nothing_of_the_scheduler_reaches_the_job(
    world: SlurmWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "a secret")
    backend = world.connect()
    submission = world.job_of("sample_jobs:show_environment")
    world.wait(backend, backend.submit(submission))
    result = read_result(open_store(submission.store), submission.prefix, submission.token)
    assert result is not None
    assert "a secret" not in json.dumps(result.value)


def test_the_token_is_in_nothing_that_slurm_is_given(cluster: SlurmCluster) -> None:
    world = RestWorld(cluster)
    connection = world.connection()
    backend = SlurmBackend(world.pool(), home=cluster.folder, connection=connection)
    submission = world.job_of("sample_jobs:show_environment")
    job = backend.submit(submission)
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    kept = [*cluster.folder.glob(f"state/hash.*/job.{job.provider_id}/*")]
    assert {"environment", "script"} <= {path.name for path in kept}
    written = [*cluster.jobs.glob(f"{backend._name(job)}*")]
    shown = cluster.run("scontrol", "--details", "show", "job", str(job.provider_id))
    result = read_result(open_store(submission.store), submission.prefix, submission.token)
    assert result is not None
    assert connection.password is not None
    for text in (*(path.read_bytes() for path in kept + written), shown, str(result.value)):
        assert connection.password not in str(text)


class OrdinaryWorld(RestWorld):
    """The same as a user who owns nothing but a folder; its jobs are of shell, as it may not see our Python."""

    user = "nobody"

    def __init__(self, cluster: SlurmCluster) -> None:
        super().__init__(cluster)
        folder = cluster.jobs / self.name
        folder.mkdir()
        shutil.chown(folder, self.user)
        self.python.write_text(IN_SHELL)
        self.options = {"folder": str(folder), "folder_here": str(folder)}

    def connection(self) -> Connection:
        return replace(
            super().connection(), login=self.user, password=self.cluster.token(user=self.user)
        )


def test_an_ordinary_user_will_do(cluster: SlurmCluster) -> None:
    require(os.geteuid() == 0, "only root runs a cluster that runs jobs of other users")
    world = OrdinaryWorld(cluster)
    backend = world.connect()
    done = backend.submit(world.submission(Behaviour.PRINTS))
    assert world.wait(backend, done).event is JobEvent.SUCCEEDED
    assert backend.read_log(done, 0).text == TEXT
    running = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, running, STARTED)
    name = cluster.run("squeue", "-h", "-j", str(running.provider_id), "-o", "%u").strip()
    assert name == world.user
    assert list(backend.list_jobs()) == [running]
    assert backend.free_slots() == world.slots - 1
    backend.release(running)
    assert world.wait(backend, running).event is JobEvent.CANCELLED


class Forgetful(CommandLine):
    """A cluster that has forgotten every job, as after `MinJobAge` without accounting."""

    def jobs(self) -> list[Any]:
        return []


class ForgetfulAndBlind(Forgetful):
    """The same, from where the shared folder cannot be seen."""

    def marks(self, names: Any) -> dict[str, Any]:  # noqa: ARG002
        return {}


def forgetful(world: SlurmWorld, kind: type[CommandLine]) -> SlurmBackend:
    options = read_options(world.pool(), home=world.cluster.folder, connection=None)
    return world.connect(kind(LocalShell(), options))


def test_a_job_that_slurm_forgot_keeps_its_end_and_is_not_run_again(world: SlurmWorld) -> None:
    backend = world.connect()
    ended = world.submission(Behaviour.FAILS_WITH_3)
    job = backend.submit(ended)
    world.wait(backend, job)
    later = forgetful(world, Forgetful)
    seen = later.observe([job])[job.key]
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, 3)
    assert later.submit(ended) == job


def test_a_job_that_slurm_forgot_while_it_ran_has_vanished(world: SlurmWorld) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, job, STARTED)
    wait_for(lambda: forgetful(world, Forgetful).observe([job])[job.key].detail.count("no word"))
    assert forgetful(world, Forgetful).observe([job])[job.key].event is JobEvent.VANISHED


def test_a_job_that_everybody_forgot_ends_at_its_own_mark(
    world: SlurmWorld, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    submission = world.job_of("sample_jobs:count_starts", path=str(starts))
    backend = world.connect()
    first = backend.submit(submission)
    wait_for(starts.exists)
    second = forgetful(world, ForgetfulAndBlind).submit(submission)
    assert second != first
    world.cluster.run("scancel", str(first.provider_id))
    wait_for(lambda: not world.cluster.run("squeue", "-h", "-n", backend._name(first)).strip())
    assert len(starts.read_text().split()) == 1


def test_two_that_submit_at_once_start_one(world: SlurmWorld, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    submission = world.job_of("sample_jobs:count_starts", path=str(starts))
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: world.connect().submit(submission), range(4)))
    backend = world.connect()
    world.wait(backend, jobs[0], STARTED)
    wait_for(starts.exists)
    backend.release(jobs[0])
    wait_for(lambda: not backend.list_jobs())
    assert len(starts.read_text().split()) == 1


@pytest.mark.parametrize("kind", [RestWorld, SlurmWorld])
@pytest.mark.parametrize(
    ("shape", "free"),
    [
        (Resources(cpus=8), 3),
        (Resources(cpus=3), 6),
        (Resources(memory_gib=10), 3),
        (Resources(accelerator="H100", accelerator_count=4), 6),
        (Resources(accelerator="A100", accelerator_count=1), 0),
        (Resources(cpus=9), 0),
    ],
    ids=["whole", "cpus", "memory", "accelerators", "not_there", "too_large"],
)
def test_room_is_what_is_idle_on_each_node(
    cluster: SlurmCluster, kind: type[SlurmWorld], shape: Resources, free: int
) -> None:
    world = kind(cluster, slots=100)
    world.shape = shape
    assert world.connect().free_slots() == free


@pytest.mark.parametrize("kind", [RestWorld, SlurmWorld])
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"partition": "nope"}, "correct the option partition"),
        ({"gres": "gpu:h100:16"}, "no node has that much"),
        ({"reservation": "nope"}, "correct the option reservation"),
        ({"constraint": "nope"}, "correct the option constraint"),
    ],
    ids=["partition", "gres", "reservation", "constraint"],
)
def test_what_slurm_does_not_have_is_named(
    cluster: SlurmCluster, kind: type[SlurmWorld], option: dict[str, str], words: str
) -> None:
    world = kind(cluster, **option)
    submission = world.submission(Behaviour.SUCCEEDS)
    with pytest.raises(RejectedError, match=words) as refusal:
        world.connect().submit(submission)
    assert refusal.value.key == submission.key


def test_a_token_that_is_wrong_or_over_is_told_from_silence(cluster: SlurmCluster) -> None:
    world = RestWorld(cluster)
    good = world.connection()

    def ask(**changes: Any) -> type[BackendError] | None:
        backend = SlurmBackend(
            world.pool(), home=cluster.folder, connection=replace(good, **changes)
        )
        try:
            backend.list_jobs()
        except BackendError as error:
            return type(error)
        return None

    short = cluster.token(seconds=1)
    assert ask() is None
    assert ask(password=f"xx{good.password}") is AccessError
    assert ask(extra={"api_version": "v0.0.1"}) is RejectedError
    assert ask(host=f"http://127.0.0.1:{free_port()}") is TransientError
    wait_for(lambda: ask(password=short) is AccessError)


def test_a_node_that_is_lost_cannot_commit_once_another_lease_has_begun(
    cluster: SlurmCluster, world: SlurmWorld
) -> None:
    backend = world.connect()
    submission = world.job_of("slurm_jobs:save_for_ever")
    store = open_store(submission.store)
    job = backend.submit(submission)
    wait_for(lambda: latest(store, submission.prefix))
    node = cluster.run("squeue", "-h", "-j", str(job.provider_id), "-o", "%N").strip()
    assert cluster.kill_node(node) >= 1
    cluster.declare_down(node)
    assert world.wait(backend, job).event is JobEvent.VANISHED
    orphan = latest(store, submission.prefix)
    assert orphan is not None
    wait_for(lambda: _step(store, submission.prefix) > orphan.manifest.step)  # it runs on
    claim(store, submission.prefix, submission.token + 1)
    taken_over = _step(store, submission.prefix)
    result = wait_for(lambda: read_result(store, submission.prefix, submission.token))
    assert result.error.type == "FencedError"
    assert _step(store, submission.prefix) == taken_over
    cluster.start_node(node)


def _step(store: Any, prefix: str) -> int:
    found = latest(store, prefix)
    assert found is not None
    return found.manifest.step


@pytest.mark.parametrize("kind", [RestWorld, SlurmWorld])
def test_the_cluster_tells_its_time(cluster: SlurmCluster, kind: type[SlurmWorld]) -> None:
    assert kind(cluster).connect()._client.clock_ahead() == timedelta(0)


def test_a_job_that_does_not_start_in_time_gives_way(
    cluster: SlurmCluster,
) -> None:
    world = SlurmWorld(cluster, start_within="PT0S")
    world.options["gres"] = "gpu:h100:8"
    backend = world.connect()
    with somebody_more_important(cluster):
        job = backend.submit(world.submission(Behaviour.SUCCEEDS))
        seen = world.wait(backend, job)
        assert seen.event is JobEvent.PREEMPTED
        assert "has not started within" in seen.detail
        backend.release(job)
