"""What it takes of a triggerer's processor to decide whether a running job should move, for 1, 50 and 500 with deadlines on spot.

The baseline is the bar: 5 ms a decision, the most expensive look included. Behind them are the books of a
thousand leases, and fifty tasks that wait. The first look is told apart: it reads what later ones find read.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import thread_time
from typing import TYPE_CHECKING

from measurement import Baseline, Measurement

from spillway.catalog.value_tables import ValueTables
from spillway.ledger import LeaseRequest
from spillway.model import JobEvent, Lease, Placement, TaskKey, TaskSpec, Unplaced
from spillway.moves import AT_ONCE
from spillway.placement.over_time import LOOK
from spillway.testing.fake_deployment import ON_DEMAND, SPEC, SPOT, FakeDeployment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spillway.model import Heartbeat

BAR = Baseline(name="bar", value=5.0)
COUNTS = (1, 50, 500)
LOOKS = 40
EARLIER = 1000
WAITING = 50
HOUR = timedelta(hours=1)


def run() -> list[Measurement]:
    """Measure decisions a minute apart, of which a few read the history of the pools anew."""
    return [one for count in COUNTS for one in _decisions(count)]


def _decisions(count: int) -> list[Measurement]:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as aside:
        pools = (replace(SPOT, slots=count + 1), ON_DEMAND)
        world = FakeDeployment(Path(folder), pools=pools, tables=ValueTables(aside=aside.submit))
        spec = replace(SPEC, work=8 * HOUR, deadline=world.clock() + 40 * HOUR)
        decision = world.dispatcher.place(spec)
        assert isinstance(decision, Placement)
        for number in range(EARLIER):
            _end(world, _grant(world, decision, f"earlier{number}"))
        leases = [_start(world, decision, f"task{number}") for number in range(count)]
        heard = {lease.key: world.dispatcher.heartbeat(lease) for lease in leases}
        said = {key: heartbeat for key, heartbeat in heard.items() if heartbeat is not None}
        _let_wait(world, spec)
        # What a look leaves aside is done before the next one, as both take their turn in one thread.
        first, *took = [aside.submit(_look, world, leases, said).result() for _ in range(1 + LOOKS)]
    what = f"processor time a decision takes, {count} leases"
    return [
        Measurement(name=f"{what}, {name}", value=value, unit="ms", baseline=BAR)
        for name, value in (
            ("median", median(took)),
            ("maximum", max(took)),
            ("first look of all", first),
        )
    ]


def _look(world: FakeDeployment, leases: Sequence[Lease], said: Mapping[str, Heartbeat]) -> float:
    """Return the milliseconds of this thread that each decision of a look took, what the look reads shared out."""
    world.clock.advance(LOOK)
    began = thread_time()
    world.dispatcher.reconsider(leases, said)
    return (thread_time() - began) * 1000 / min(len(leases), AT_ONCE)


def _start(world: FakeDeployment, decision: Placement, name: str) -> Lease:
    lease = _grant(world, decision, name)
    world.dispatcher.backend("spot").submit(lease.submission)
    lease = world.ledger.record(lease.key, JobEvent.STARTED, now=world.clock())
    world.say(lease, step=1, total_steps=1000, first_step=1, first_progress_at=world.clock())
    return lease


def _grant(world: FakeDeployment, decision: Placement, name: str) -> Lease:
    assert decision.task is not None
    request = LeaseRequest(
        task=_key(name),
        spec=decision.task,
        placement=decision,
        owner_try=1,
        owner_clear=0,
        store=world.store_url,
        prefix=f"nightly/{name}",
        grace_period=SPOT.grace_period,
    )
    return world.ledger.grant(request, slots=10_000, now=world.clock())


def _let_wait(world: FakeDeployment, spec: TaskSpec) -> None:
    """Write down tasks that wait for spot capacity, which has its turn in what steady capacity is for."""
    world.providers["spot"].has_capacity = False
    decision = world.dispatcher.place(spec)
    world.providers["spot"].has_capacity = True
    assert isinstance(decision, Unplaced)
    for number in range(WAITING):
        until = world.clock() + 30 * 24 * HOUR
        world.ledger.note_waiting(
            _key(f"waiting{number}"), decision, until=until, now=world.clock()
        )


def _key(name: str) -> TaskKey:
    return TaskKey(dag_id="nightly", run_id="manual__2026", task_id=name)


def _end(world: FakeDeployment, lease: Lease) -> None:
    world.ledger.record(lease.key, JobEvent.SUCCEEDED, now=world.clock())
    world.ledger.end(lease.key, now=world.clock())
