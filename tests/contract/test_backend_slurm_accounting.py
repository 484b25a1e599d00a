"""Jobs of a real Slurm cluster that keeps accounts: QOS, accounts, limits and what accounting remembers; and reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conftest import require
from contract.slurm_world import RestWorld, SlurmWorld, wait_for
from spillway.errors import AccessError, CapacityError
from spillway.model import JobEvent
from spillway.testing import slurm_accounting, slurm_cluster
from spillway.testing.backend_suite import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spillway.backends.protocol import Job
    from spillway.testing.slurm_cluster import SlurmCluster

both_ways = pytest.mark.parametrize("kind", [SlurmWorld, RestWorld])
FORGETS_AFTER_SECONDS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    missing = (*slurm_cluster.missing_programs(), *slurm_accounting.missing_programs())
    how = f"{slurm_cluster.INSTALL}; {slurm_accounting.INSTALL}"
    require(not missing, f"{', '.join(missing)} not installed: {how}")
    with slurm_cluster.slurm_cluster(
        accounting=True, remembered_seconds=FORGETS_AFTER_SECONDS
    ) as cluster:
        add = ("sacctmgr", "-i", "add", "qos")
        cluster.run(*add, "contract")
        cluster.run(*add, "tight", "MaxSubmitJobsPerUser=1", "Flags=DenyOnLimit")
        user = ("sacctmgr", "-i", "modify", "user", cluster.user, "set")
        cluster.run(*user, "qos=normal,contract,tight")
        yield cluster


@both_ways
def test_a_job_runs_under_account_and_qos(cluster: SlurmCluster, kind: type[SlurmWorld]) -> None:
    world = kind(cluster, account="acme", qos="contract")
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, job, frozenset({JobEvent.STARTED}))
    said = cluster.run("squeue", "-h", "-j", str(job.provider_id), "-o", "%a %q").split()
    assert said == ["acme", "contract"]
    world.release_all()


@both_ways
@pytest.mark.parametrize("option", ["account", "qos"])
def test_an_account_or_qos_that_is_not_ours_is_named(
    cluster: SlurmCluster, kind: type[SlurmWorld], option: str
) -> None:
    world = kind(cluster, **{option: "nope"})
    submission = world.submission(Behaviour.SUCCEEDS)
    with pytest.raises(AccessError, match=f"correct the option {option}") as refusal:
        world.connect().submit(submission)
    assert refusal.value.key == submission.key
    assert list(world.connect().list_jobs()) == []


@both_ways
def test_a_limit_of_the_qos_sends_the_task_elsewhere(
    cluster: SlurmCluster, kind: type[SlurmWorld]
) -> None:
    world = kind(cluster, account="acme", qos="tight")
    backend = world.connect()
    held = backend.submit(world.submission(Behaviour.RUNS_ON))
    with pytest.raises(CapacityError, match="a limit of the account or QOS"):
        backend.submit(world.submission(Behaviour.RUNS_ON))
    assert list(backend.list_jobs()) == [held]
    world.release_all()
    wait_for(lambda: not cluster.run("squeue", "-h", "-n", backend._name(held)).strip())


def ends_of(world: SlurmWorld, jobs: Sequence[Job]) -> list[tuple[JobEvent | None, int | None]]:
    seen = world.connect().observe(jobs)
    return [(seen[job.key].event, seen[job.key].exit_code) for job in jobs]


@both_ways
def test_accounting_says_how_a_job_ended_that_the_controller_forgot(
    cluster: SlurmCluster, kind: type[SlurmWorld]
) -> None:
    world = kind(cluster)
    backend = world.connect()
    behaviours = (Behaviour.SUCCEEDS, Behaviour.FAILS_WITH_3, Behaviour.IS_PREEMPTED)
    submissions = [world.submission(behaviour) for behaviour in behaviours]
    jobs = []
    for submission in submissions:
        jobs.append(backend.submit(submission))
        world.wait(backend, jobs[-1])
    wait_for(lambda: not cluster.run("squeue", "-h", "-t", "all").strip())
    hidden = [path.rename(path.with_suffix(".away")) for path in cluster.jobs.glob("*.began")]
    ends = [(JobEvent.SUCCEEDED, 0), (JobEvent.FAILED, 3), (JobEvent.PREEMPTED, 75)]
    lost = (JobEvent.VANISHED, None)  # slurmrestd 22.05 has no exit codes of accounting
    told = ends if kind is SlurmWorld else [ends[0], lost, lost]
    assert ends_of(world, jobs) == told
    for path in hidden:
        path.rename(path.with_suffix(".began"))
    assert ends_of(world, jobs) == ends
    assert [world.connect().submit(submission) for submission in submissions] == jobs


def test_a_job_starts_inside_of_a_reservation(cluster: SlurmCluster) -> None:
    reserve = ("scontrol", "create", "reservation", "Reservation=ours", "StartTime=now")
    cluster.run(*reserve, "Duration=60", f"Users={cluster.user}", "Nodes=pn2", "Flags=IGNORE_JOBS")
    try:
        for kind in (SlurmWorld, RestWorld):
            world = kind(cluster, reservation="ours")
            backend = world.connect()
            assert backend.free_slots() > 0
            job = backend.submit(world.submission(Behaviour.RUNS_ON))
            world.wait(backend, job, frozenset({JobEvent.STARTED}))
            where = cluster.run("squeue", "-h", "-j", str(job.provider_id), "-o", "%N %v").split()
            assert where == ["pn2", "ours"]
            backend.release(job)
            wait_for(lambda: not backend.list_jobs())  # noqa: B023  # called here
    finally:
        cluster.run("scontrol", "delete", "Reservation=ours")
