"""A thousand leases on one pool: what a look asks the provider does not grow with them, and each trigger hears of its own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import pytest

from spillway.airflow import observer as observer_module
from spillway.airflow.hook import SpillwayHook
from spillway.airflow.observer import OUTPUTS_PER_LOOK, PoolObserver
from spillway.airflow.triggers import LeaseTrigger
from spillway.errors import TransientError
from spillway.model import LeaseState
from spillway.testing.fake_deployment import SPOT, FakeDeployment
from spillway.testing.ledger_samples import sample_request, sample_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from pathlib import Path

    from spillway.airflow.observer import Sighting
    from spillway.model import Lease

POLL_SECONDS = 0.01
MANY = 1000

T = TypeVar("T")


@pytest.fixture
def crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDeployment:
    """A deployment of one pool that has room for a thousand jobs."""
    world = FakeDeployment(tmp_path, pools=[replace(SPOT, slots=MANY)])
    monkeypatch.setattr(SpillwayHook, "dispatcher", lambda _: world.new_process())
    monkeypatch.setattr(observer_module, "_observers", {})
    return world


def start(world: FakeDeployment, count: int, prefix: str = "task") -> list[Lease]:
    """Lease and submit `count` jobs past the decision where to."""
    backend, leases = world.dispatcher.backend("spot"), []
    for number in range(count):
        request = replace(
            sample_request(sample_task(f"{prefix}{number}"), pool="spot"), store=world.store_url
        )
        leases.append(world.ledger.grant(request, slots=MANY, now=world.clock()))
        backend.submit(leases[-1].submission)
    world.providers["spot"].calls.clear()
    return leases


async def soon(coroutine: Awaitable[T]) -> T:
    return await asyncio.wait_for(coroutine, timeout=50)


async def looks(
    world: FakeDeployment, leases: Sequence[Lease], count: int
) -> list[dict[str, Sighting]]:
    """Watch all `leases` for `count` looks of one observer; return what each look showed, by key."""
    observer = PoolObserver(world.new_process, "spot", POLL_SECONDS)
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(observer.watch(one.key)) for one in leases]
        return [{watch.key: await soon(watch.next()) for watch in watches} for _ in range(count)]


def calls_per_look(world: FakeDeployment, count: int) -> tuple[float, float]:
    provider = world.providers["spot"]
    asyncio.run(looks(world, start(world, count, f"of-{count}-"), 3))
    observed = provider.calls.count("observe")
    assert set(provider.calls) == {"observe", "read_log"}
    assert observed in (3, 4)  # it may have begun another one
    return 1.0, provider.calls.count("read_log") / observed


def test_calls_to_the_provider_do_not_grow_with_leases(crowd: FakeDeployment) -> None:
    few = calls_per_look(crowd, 2 * OUTPUTS_PER_LOOK)
    many = calls_per_look(crowd, 15 * OUTPUTS_PER_LOOK)
    assert few == many == (1.0, OUTPUTS_PER_LOOK)


def test_each_of_a_thousand_triggers_hears_of_its_own_job(crowd: FakeDeployment) -> None:
    leases = start(crowd, MANY)
    provider = crowd.providers["spot"]

    async def event_of(lease: Lease) -> object:
        trigger = LeaseTrigger(
            key=lease.key,
            pool="spot",
            owner_try=1,
            conn_id="spillway_default",
            poll_seconds=POLL_SECONDS,
            not_before=datetime.now(UTC).isoformat(),
        )
        (event,) = [event async for event in trigger.run()]
        return event.payload

    async def scenario() -> list[object]:
        events = [asyncio.create_task(event_of(lease)) for lease in leases]
        await asyncio.sleep(POLL_SECONDS)
        for number, lease in enumerate(leases):
            provider.succeed(lease.key) if number % 2 else provider.preempt(lease.key)
        return await soon(asyncio.gather(*events))

    told = asyncio.run(scenario())
    ends = [LeaseState.SUCCEEDED if number % 2 else LeaseState.PREEMPTED for number in range(MANY)]
    assert told == [
        {"key": lease.key, "state": end.value} for lease, end in zip(leases, ends, strict=True)
    ]
    observed = provider.calls.count("observe")
    assert observed <= 3  # of what is over already, nobody is asked again
    assert provider.calls.count("read_log") <= OUTPUTS_PER_LOOK * (observed + 1)


def test_every_job_has_its_output_read_in_turn(crowd: FakeDeployment) -> None:
    leases = start(crowd, 3 * OUTPUTS_PER_LOOK)
    for lease in leases:
        crowd.providers["spot"].print(lease.key, lease.key)
    seen = asyncio.run(looks(crowd, leases, 3))
    assert sum(one.output is not None for one in seen[0].values()) == OUTPUTS_PER_LOOK
    for lease in leases:
        assert [look[lease.key].output for look in seen if look[lease.key].output] == [lease.key]


def test_what_a_job_printed_last_is_read_before_all_others(crowd: FakeDeployment) -> None:
    leases = start(crowd, 3 * OUTPUTS_PER_LOOK)
    last = leases[-1]
    crowd.providers["spot"].print(last.key, "the end")
    crowd.providers["spot"].succeed(last.key)
    (seen,) = asyncio.run(looks(crowd, leases, 1))
    assert seen[last.key].output == "the end"


def test_a_provider_that_throttles_the_reading_of_output_is_asked_for_no_more(
    crowd: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = start(crowd, OUTPUTS_PER_LOOK)
    asked: list[str] = []

    def throttled(_: object, lease: Lease, offset: int) -> object:
        asked.append(lease.key)
        raise TransientError("slow down", backend="fake")

    monkeypatch.setattr("spillway.dispatch.Dispatcher.read_log", throttled)
    (seen,) = asyncio.run(looks(crowd, leases, 1))
    assert len(asked) in (1, 2)  # one a look
    assert {one.lease.state for one in seen.values()} == {LeaseState.RUNNING}
