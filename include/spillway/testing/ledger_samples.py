"""Requests for leases as tests of the ledger make them, and an oracle for what they cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Final

from spillway.ledger import LeaseRequest
from spillway.model import (
    Estimate,
    HourlyCommitment,
    Market,
    Offer,
    PassedOver,
    Placement,
    Pool,
    Resources,
    TaskKey,
    TaskSpec,
)

NOON: Final = datetime(2026, 3, 14, 12, 0, tzinfo=UTC)
MARGINAL: Final = Decimal("0.123456789012345678")
EFFECTIVE: Final = Decimal("0.2")
LIST: Final = Decimal("1.00")


def sample_task(name: str = "train", *, run_id: str = "manual__2026") -> TaskKey:
    """Return a task of the DAG `nightly`."""
    return TaskKey(dag_id="nightly", run_id=run_id, task_id=name)


def sample_pool(name: str, *, slots: int = 2) -> Pool:
    """Return a pool with a price owed by the hour."""
    return Pool(
        name=name,
        backend="local",
        market=Market.RESERVED,
        slots=slots,
        shape=Resources(),
        list_usd_per_hour=LIST,
        commitment=HourlyCommitment(usd_per_slot_hour=EFFECTIVE),
    )


def sample_offer(pool: str, *, market: Market = Market.SPOT) -> Offer:
    """Return an offer of `pool` whose prices have more digits than a float keeps."""
    return Offer(
        pool=pool,
        backend="local",
        market=market,
        region="local",
        shape=Resources(cpus=2.0, memory_gib=4.0),
        free_slots=2,
        cooling_down=False,
        marginal_usd_per_hour=MARGINAL,
        effective_usd_per_hour=EFFECTIVE,
        list_usd_per_hour=LIST,
        price_reason="list price",
        preemptions_per_hour=0.1,
        restart_overhead=timedelta(seconds=5),
        grace_period=timedelta(seconds=30),
        speed=1.0,
    )


def sample_request(
    task: TaskKey | None = None,
    *,
    pool: str = "spot",
    owner_try: int = 1,
    owner_clear: int = 0,
    nodes: int = 1,
) -> LeaseRequest:
    """Return a request to lease `nodes` slots of `pool`, with one offer passed over."""
    estimate = Estimate(
        leased=timedelta(hours=3),
        cost_usd=Decimal("0.37"),
        checkpoint_interval=timedelta(minutes=10),
    )
    other = PassedOver(offer=sample_offer("on_demand"), reason="dearer by $2.63")
    return LeaseRequest(
        task=task or sample_task(),
        spec=TaskSpec(
            entry_point="package.module:train",
            arguments={"rate": 0.1, "é": [None]},
            nodes=nodes,
        ),
        placement=Placement(
            offer=sample_offer(pool),
            estimate=estimate,
            reason="cheapest to complete",
            passed_over=(other,),
        ),
        owner_try=owner_try,
        owner_clear=owner_clear,
        store="file:///store",
        prefix="nightly/train",
        grace_period=timedelta(seconds=30),
    )


def price_times_time(usd_per_hour: Decimal, leased: timedelta) -> Decimal:
    """Return what `leased` costs, rounded once to 1e-10 dollars; written apart from the accrual it checks."""
    microseconds = (leased.days * 86_400 + leased.seconds) * 1_000_000 + leased.microseconds
    with localcontext(prec=80, rounding=ROUND_HALF_EVEN):
        return (usd_per_hour * microseconds / 3_600_000_000).quantize(Decimal("1e-10"))
