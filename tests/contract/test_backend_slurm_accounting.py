"""Jobs of a real Slurm cluster that keeps accounts: QOS, accounts, limits and what accounting remembers; and reservations."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from conftest import require
from contract.slurm_world import RestWorld, SlurmWorld, wait_for
from spillway.backends.slurm.backend import SlurmBackend
from spillway.catalog.pools_file import load_pools
from spillway.catalog.store_place import StorePlace
from spillway.dispatch import Dispatcher, Running, TaskRequest
from spillway.errors import AccessError, CapacityError, RejectedError
from spillway.ledger import Ledger
from spillway.model import JobEvent, Placement, TaskKey, TaskSpec, Unplaced
from spillway.testing import slurm_accounting, slurm_cluster
from spillway.testing.backend_suite import Behaviour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

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


def test_a_job_starts_inside_of_a_reservation_and_the_pool_ends_with_it(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    reserve = ("scontrol", "create", "reservation", "Reservation=ours", "StartTime=now")
    cluster.run(*reserve, "Duration=60", f"Users={cluster.user}", "Nodes=pn2", "Flags=IGNORE_JOBS")
    try:
        for kind in (SlurmWorld, RestWorld):
            world = kind(cluster, reservation="ours")
            backend = world.connect()
            assert backend.free_slots() > 0
            said = backend.said_end()
            assert said is not None
            assert timedelta(minutes=50) < said.at - said.said_at <= timedelta(minutes=60)
            wait_for(
                lambda: cluster.run("sinfo", "-h", "-n", "pn2", "-o", "%T").split()[0] == "reserved"
            )
            job = backend.submit(world.submission(Behaviour.RUNS_ON))
            world.wait(backend, job, frozenset({JobEvent.STARTED}))
            where = cluster.run("squeue", "-h", "-j", str(job.provider_id), "-o", "%N %v").split()
            assert where == ["pn2", "ours"]
            backend.release(job)
            wait_for(lambda: not backend.list_jobs())  # noqa: B023  # called here
        short, long = (replace(SPEC, work=timedelta(hours=hours)) for hours in (0.5, 2))
        with dispatcher(cluster, tmp_path, [sold("ours", reservation="ours")]) as books:
            assert isinstance(books.place(short), Placement)
            decision = books.place(long)
            assert isinstance(decision, Unplaced)
            assert "UTC as slurm said" in decision.passed_over[0].reason
    finally:
        cluster.run("scontrol", "delete", "Reservation=ours")
    for kind in (SlurmWorld, RestWorld):
        with pytest.raises(RejectedError, match=r"(?i)reservation"):
            kind(cluster, reservation="ours").connect().said_end()


# ---- a contract over a part of the cluster, as a pools file has it

SPEC = TaskSpec(entry_point="sample_jobs:run_on", work=timedelta(hours=1))
MINIMUM = {
    "kind": "monthly_minimum",
    "slot_hours": 10,
    "usd_per_slot_hour": 2,
    "overage_usd_per_slot_hour": 3,
    "variable_usd_per_slot_hour": 0.1,
    "ends_at": "2026-03-20T00:00:00Z",
}
PREPAID = {
    "kind": "prepaid",
    "slot_hours": 1000,
    "usd_per_slot_hour": 0.01,
    "overage_usd_per_slot_hour": 0.02,
    "starts_at": "2026-01-01T00:00:00Z",
    "ends_at": "2030-01-01T00:00:00Z",
}


def sold(
    name: str, commitment: object = PREPAID, law: str = "EU", **options: str
) -> dict[str, Any]:
    return {
        "name": name,
        "backend": "slurm",
        "market": "partner",
        "slots": 2,
        "shape": {"cpus": 1, "memory_gib": 1},
        "list_usd_per_hour": 5,
        "jurisdiction": law,
        "commitment": commitment,
        "options": options,
    }


@contextmanager
def dispatcher(
    cluster: SlurmCluster,
    folder: Path,
    pools: Sequence[dict[str, Any]],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Dispatcher]:
    """Carry tasks over what a pools file says of the cluster."""
    for pool in pools:
        pool["options"] = {**SlurmWorld(cluster).pool().options, **pool["options"]}
    path = folder / "pools.yaml"
    path.write_text(json.dumps({"pools": pools}))  # all JSON is YAML
    books = Dispatcher(
        pools=load_pools(path, [], backends=["slurm"]),
        ledger=Ledger.open(f"sqlite:///{folder}/{pools[0]['name']}.db"),
        store_url=(folder / "store").as_uri(),
        store_place=StorePlace(jurisdiction="EU"),
        backend_of=lambda pool: SlurmBackend(pool, home=folder, clock=clock),
        clock=clock,
    )
    yield books
    for lease in books.ledger.open_leases():
        books.cancel(lease.key, detail="the test is over")
    books.ledger.close()


def test_minimum_overage_term_and_residency_act_on_a_pool_under_contract(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    now = [datetime(2026, 3, 10, tzinfo=UTC)]
    pools = [sold("colossus", MINIMUM), sold("abroad", PREPAID, "US")]
    here = replace(SPEC, residency=frozenset({"EU"}))
    with dispatcher(cluster, tmp_path, pools, lambda: now[0]) as books:
        anywhere, at_home = books.place(SPEC), books.place(here)
        assert isinstance(anywhere, Placement)
        assert isinstance(at_home, Placement)
        assert (anywhere.offer.pool, at_home.offer.pool) == ("abroad", "colossus")
        assert "US" in at_home.passed_over[0].reason

        task = TaskKey(dag_id="nightly", run_id="manual", task_id="train")
        step = books.begin(TaskRequest(task=task, spec=here))
        assert isinstance(step, Running)
        now[0] += timedelta(hours=12)
        books.cancel(step.lease.key, detail="enough")
        books.settle(books.ledger.lease(step.lease.key))
        costs = books.ledger.cost_records(step.lease.key)
        assert sum(one.marginal_cost for one in costs) == Decimal("1.2")  # within the minimum
        assert sum(one.effective_cost for one in costs) == Decimal("25.2")
        assert sum(one.list_cost for one in costs) == 60

        past = books.place(here)
        assert isinstance(past, Placement)
        assert past.offer.marginal_usd_per_hour == Decimal("3.1")
        assert "past the monthly minimum" in past.reason
        now[0] = datetime(2026, 3, 20, tzinfo=UTC)
        over = books.place(here)
        assert isinstance(over, Placement)
        assert "the contract ended on 2026-03-20" in over.reason
