"""A task and an offer that fits it, to be changed one fact at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from spillway.model import Market, Offer, Resources, TaskSpec


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def task() -> TaskSpec:
    return TaskSpec(
        entry_point="package.module:train",
        arguments={"size": "small"},
        resources=Resources(cpus=2, memory_gib=4),
        work=timedelta(hours=2),
        checkpoints=True,
        checkpoint_write=timedelta(0),
        restart_overhead=timedelta(0),
    )


@pytest.fixture
def offer() -> Offer:
    return Offer(
        pool="on_demand",
        backend="local",
        market=Market.ON_DEMAND,
        region="local",
        shape=Resources(cpus=2, memory_gib=8),
        free_slots=1,
        cooling_down=False,
        marginal_usd_per_hour=Decimal("0.10"),
        effective_usd_per_hour=Decimal("0.10"),
        list_usd_per_hour=Decimal("0.10"),
        price_reason="list price",
        preemptions_per_hour=0.0,
        restart_overhead=timedelta(0),
        grace_period=timedelta(seconds=30),
        speed=1.0,
    )
