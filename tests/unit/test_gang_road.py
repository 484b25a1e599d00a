"""A gang's whole road on this machine: leased together, taken back together, and gone on with elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patience import PATIENCE_SECONDS
from spillway.backends.local.backend import LocalBackend
from spillway.dispatch import Dispatcher, Finished, Running, TaskRequest, Waiting
from spillway.ledger import Ledger
from spillway.model import LeaseState, Market, Pool, Resources, TaskKey, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

ENTRY_POINTS = Path(__file__).parents[1] / "entry_points"


def a_pool(name: str, market: Market, usd: str, **options: object) -> Pool:
    return Pool(
        name=name,
        backend="local",
        market=market,
        slots=2,
        shape=Resources(),
        list_usd_per_hour=Decimal(usd),
        preemptions_per_hour=0.1 if market is Market.SPOT else 0.0,
        grace_period=timedelta(seconds=10),
        options={"python_path": [str(ENTRY_POINTS)], **options},  # type: ignore[dict-item]
    )


@pytest.fixture
def dispatcher(tmp_path: Path) -> Iterator[Dispatcher]:
    spot = a_pool("spot", Market.SPOT, "1", interruptions={"trace": [[6, 600]]})
    dispatcher = Dispatcher(
        pools=[spot, a_pool("on_demand", Market.ON_DEMAND, "3")],
        ledger=Ledger.open(f"sqlite:///{tmp_path}/ledger.db"),
        store_url=(tmp_path / "store").as_uri(),
        backend_of=lambda pool: LocalBackend(pool, home=tmp_path),
    )
    yield dispatcher
    for lease in dispatcher.ledger.open_leases():
        dispatcher.cancel(lease.key, detail="the test is over")
    dispatcher.ledger.close()


def test_a_gang_that_is_taken_back_goes_on_elsewhere_with_all_its_nodes(
    dispatcher: Dispatcher, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    request = TaskRequest(
        task=TaskKey(dag_id="nightly", run_id="manual", task_id="gang"),
        spec=TaskSpec(
            entry_point="sample_jobs:train",
            arguments={"steps": 100, "gate": str(gate)},
            work=timedelta(hours=1),
            checkpoints=True,
            nodes=2,
        ),
    )
    step = dispatcher.begin(request)
    assert isinstance(step, Running)
    assert (step.lease.pool, step.lease.slots) == ("spot", 2)
    assert step.lease.marginal_usd_per_hour == 2
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not isinstance(step, Finished):
        assert time.monotonic() < deadline, step
        time.sleep(0.1)
        if isinstance(step, Waiting):
            step = dispatcher.begin(request)
            continue
        if step.lease.pool == "on_demand":
            gate.touch()
        step = dispatcher.advance(request, step.lease.key)
    assert step.result == {"total": sum(range(1, 101)), "first": 51}
    first, second = dispatcher.ledger.attempts(request.task)
    assert (first.pool, first.state) == ("spot", LeaseState.PREEMPTED)
    assert (second.pool, second.state) == ("on_demand", LeaseState.SUCCEEDED)
    for lease, usd in ((first, 1), (second, 3)):
        assert lease.ended_at is not None
        hours = (lease.ended_at - lease.granted_at) / timedelta(hours=1)
        charged = sum(cost.list_cost for cost in dispatcher.ledger.cost_records(lease.key))
        assert float(charged) == pytest.approx(2 * usd * hours, rel=1e-6)
