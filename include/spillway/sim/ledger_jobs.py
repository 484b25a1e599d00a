"""Jobs from the books: what was run in a month, as if it came again."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from spillway.errors import ScenarioError
from spillway.ledger import Ledger
from spillway.model import Lease, LeaseState, Pool, TaskSpec
from spillway.sim.scenario import SimulatedJob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spillway.model import TaskKey

_MOST_LEASES: Final = 1_000_000
_SHORTEST: Final = timedelta(seconds=1)


def ledger_jobs(
    url: str, pools: Sequence[Pool], *, start: datetime, end: datetime
) -> tuple[SimulatedJob, ...]:
    """Return the tasks whose first lease was granted in `[start, end)`, by their arrival.

    A task comes when its first lease was granted, not when it began to wait. One that succeeded in one lease has the work it
    showed, at the speed its pool has in the pools file; any other has the work that its placement reckoned with.

    Raises:
        ScenarioError: It has no lease in that time.
        LedgerError: There is no such ledger, or it cannot be read.
    """
    ledger = Ledger.open_to_read(url)
    try:
        leases: dict[TaskKey, list[Lease]] = defaultdict(list)
        for report in ledger.runs(now=end, limit=_MOST_LEASES):
            leases[report.lease.task].append(report.lease)
        speeds = {pool.name: pool.speed for pool in pools}
        jobs = [
            _job(ledger, sorted(of_task, key=lambda lease: lease.token), speeds)
            for of_task in leases.values()
            if start <= min(lease.granted_at for lease in of_task) < end
        ]
    finally:
        ledger.close()
    if not jobs:
        raise ScenarioError(
            f"the ledger has no lease granted from {start:%Y-%m-%d} to {end:%Y-%m-%d}; choose another --month"
        )
    return tuple(sorted(jobs, key=lambda job: (job.arrives_at, job.name)))


def _job(ledger: Ledger, leases: Sequence[Lease], speeds: Mapping[str, float]) -> SimulatedJob:
    first = leases[0]
    said = ledger.placement(first.key).task
    spec = _spec_of(first) if said is None else said
    return SimulatedJob(
        name=str(first.task),
        arrives_at=first.granted_at,
        spec=replace(spec, work=max(_shown_work(leases, spec, speeds), _SHORTEST), max_attempts=10),
    )


def _shown_work(leases: Sequence[Lease], spec: TaskSpec, speeds: Mapping[str, float]) -> timedelta:
    only = leases[0]
    if len(leases) > 1 or only.state is not LeaseState.SUCCEEDED or only.started_at is None:
        return spec.work
    assert only.ended_at is not None or only.state is LeaseState.SUCCEEDED
    ended = only.ended_at or only.started_at
    return (ended - only.started_at - spec.restart_overhead) * speeds.get(only.pool, 1.0)


def _spec_of(lease: Lease) -> TaskSpec:
    """Return what the submission tells of a task whose placement was stored without it."""
    sent = lease.submission
    return TaskSpec(
        entry_point=sent.entry_point, resources=sent.resources, nodes=sent.nodes,
        checkpoints=sent.checkpoint_interval is not None,
    )  # fmt: skip
