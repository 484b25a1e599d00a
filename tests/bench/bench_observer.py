"""What one look at a pool takes of a triggerer's processor, and asks of the provider, for 10, 100 and 1,000 leases.

The baseline is a look of its own for each lease, as without an observer that triggers share.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from measurement import Baseline, Measurement

from spillway.airflow.observer import PoolObserver, Watch
from spillway.testing.fake_deployment import SPOT, FakeDeployment
from spillway.testing.ledger_samples import sample_request, sample_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spillway.model import Lease

COUNTS = (10, 100, 1000)
LOOKS = 5


def run() -> list[Measurement]:
    """Measure looks at leases that run, each of which has said something."""
    with tempfile.TemporaryDirectory() as folder:
        world = FakeDeployment(Path(folder), pools=[replace(SPOT, slots=max(COUNTS))])
        leases = [_start(world, number) for number in range(max(COUNTS))]
        _one_by_one(world, leases)()  # all are seen to have started
        return [
            measurement
            for count in COUNTS
            for measurement in _compare(
                world, count, _together(world, leases[:count]), _one_by_one(world, leases[:count])
            )
        ]


def _compare(
    world: FakeDeployment, count: int, together: Callable[[], None], alone: Callable[[], None]
) -> list[Measurement]:
    ms, calls = _measure(world, together, LOOKS)
    alone_ms, alone_calls = _measure(world, alone, 1)  # 24 s for 1,000
    base = "each lease by itself"
    return [
        Measurement(
            name=f"processor time of a look at {count:,} leases",
            value=ms,
            unit="ms",
            baseline=Baseline(name=base, value=alone_ms),
        ),
        Measurement(
            name=f"calls to the provider by a look at {count:,} leases",
            value=calls,
            unit="calls",
            baseline=Baseline(name=base, value=alone_calls),
        ),
    ]


def _measure(world: FakeDeployment, look: Callable[[], None], looks: int) -> tuple[float, float]:
    """Return milliseconds of processor time and calls to the provider, both of one look."""
    calls = world.providers["spot"].calls
    calls.clear()
    began = time.process_time()
    for _ in range(looks):
        look()
    return (time.process_time() - began) * 1000 / looks, len(calls) / looks


def _together(world: FakeDeployment, leases: Sequence[Lease]) -> Callable[[], None]:
    return _looks(world, [Watch(lease.key) for lease in leases])


def _one_by_one(world: FakeDeployment, leases: Sequence[Lease]) -> Callable[[], None]:
    looks = [_looks(world, [Watch(lease.key)]) for lease in leases]
    return lambda: [look() for look in looks] and None


def _looks(world: FakeDeployment, watches: Sequence[Watch]) -> Callable[[], None]:
    observer = PoolObserver(world.new_process, "spot", 5.0)
    return lambda: observer._look(watches) and None  # the loop around it only sleeps


def _start(world: FakeDeployment, number: int) -> Lease:
    request = replace(
        sample_request(sample_task(f"task{number}"), pool="spot"), store=world.store_url
    )
    lease = world.ledger.grant(request, slots=max(COUNTS), now=world.clock())
    world.dispatcher.backend("spot").submit(lease.submission)
    world.say(lease, step=1)
    return lease
