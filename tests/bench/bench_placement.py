"""CPU time of one placement decision, against taking the lowest price per hour and asking nothing else."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import process_time
from timeit import Timer
from typing import TYPE_CHECKING

from measurement import Baseline, Measurement

from spillway.model import Market, Offer, Resources, TaskSpec
from spillway.placement.choose import choose
from spillway.placement.explain import reasons_table

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
TASK = TaskSpec(
    entry_point="package.module:train",
    resources=Resources(cpus=2, memory_gib=4),
    work=timedelta(hours=8),
    checkpoints=True,
    deadline=NOW + timedelta(hours=12),
)


def run() -> list[Measurement]:
    """Measure a deployment of four pools and a catalogue of a thousand offers."""
    return [measurement for count in (4, 1000) for measurement in measure(count)]


def measure(count: int) -> list[Measurement]:
    offers = [some_offer(number) for number in range(count)]
    decision = choose(TASK, offers, NOW)
    plain = Baseline(
        name="lowest price per hour, by min()",
        value=milliseconds(lambda: min(offers, key=lambda offer: offer.marginal_usd_per_hour)),
    )
    chosen = milliseconds(lambda: choose(TASK, offers, NOW))
    told = milliseconds(lambda: reasons_table(decision))
    return [
        Measurement(
            name=f"placement decision over {count} offers, reasons included",
            value=chosen,
            unit="ms CPU",
            baseline=plain,
        ),
        Measurement(name=f"table of {count} reasons", value=told, unit="ms CPU"),
    ]


def some_offer(number: int) -> Offer:
    """Return an offer of its own kind for each number: some too small, some full, all priced."""
    rng = random.Random(number)
    market = rng.choice(list(Market))
    price = Decimal(rng.randrange(1000, 50_000)).scaleb(-4)
    return Offer(
        pool=f"pool_{number:04}",
        backend="local",
        market=market,
        region="local",
        shape=Resources(cpus=rng.choice([1, 2, 4, 8]), memory_gib=8),
        free_slots=rng.choice([0, 1, 4]),
        cooling_down=False,
        marginal_usd_per_hour=price,
        effective_usd_per_hour=price,
        list_usd_per_hour=price,
        price_reason="list price",
        preemptions_per_hour=rng.uniform(0.01, 0.5) if market is Market.SPOT else 0.0,
        restart_overhead=timedelta(minutes=2),
        grace_period=timedelta(seconds=30),
        speed=rng.choice([0.5, 1.0, 2.0]),
    )


def milliseconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, the best of several rounds: a busy machine only ever makes it longer."""
    timer = Timer(work, timer=process_time)
    calls, _ = timer.autorange()
    return min(timer.repeat(5, max(calls // 5, 1))) / max(calls // 5, 1) * 1000
