"""Triggers watch leases of fake pools: one event each, one look for all, and no end that is not one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import create_autospec

import pytest

from spillway.airflow import context
from spillway.airflow.observer import PoolObserver
from spillway.airflow.pace import Pace
from spillway.airflow.triggers import LeaseTrigger
from spillway.checkpoints import open_store
from spillway.dispatch import Dispatcher, Running
from spillway.errors import LedgerError, LedgerUnavailableError
from spillway.model import LeaseState
from spillway.runtime.stop_request import read_stop_request
from spillway.testing.fake_deployment import SPEC

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from airflow.triggers.base import TriggerEvent

    from spillway.model import Lease
    from spillway.testing.fake_deployment import FakeDeployment

POLL_SECONDS = 0.01


def start(world: FakeDeployment, name: str = "train") -> Lease:
    step = world.dispatcher.begin(world.request(name))
    assert isinstance(step, Running)
    return step.lease


def watching(
    lease: Lease, *, not_before: datetime | None = None, key: str | None = None
) -> LeaseTrigger:
    return LeaseTrigger(
        key=key or lease.key,
        pool=lease.pool,
        owner_try=lease.owner_try,
        conn_id="spillway_default",
        poll_seconds=POLL_SECONDS,
        not_before=(not_before or datetime.now(UTC)).isoformat(),
    )


async def events(trigger: LeaseTrigger) -> list[TriggerEvent]:
    return [event async for event in trigger.run()]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 # it comes true in another thread; `soon` says how long that may take
        await asyncio.sleep(POLL_SECONDS)


def soon(coroutine: Coroutine[object, object, None]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(
            coroutine, timeout=120
        )  # a busy machine takes long to make a value table

    asyncio.run(limited())


def test_a_trigger_fires_once_when_the_job_is_over(world: FakeDeployment) -> None:
    lease = start(world)

    async def scenario() -> None:
        fired = asyncio.create_task(events(watching(lease)))
        await asyncio.sleep(5 * POLL_SECONDS)
        assert not fired.done()
        world.succeed(lease)
        (event,) = await fired
        assert event.payload == {"key": lease.key, "state": "succeeded"}

    soon(scenario())


def test_no_event_comes_before_its_time(world: FakeDeployment) -> None:
    lease = start(world)
    world.succeed(lease)
    not_before = datetime.now(UTC) + timedelta(seconds=0.4)

    async def scenario() -> None:
        await events(watching(lease, not_before=not_before))
        assert datetime.now(UTC) >= not_before

    soon(scenario())


def test_one_look_serves_every_lease_of_a_pool(world: FakeDeployment) -> None:
    start(world, "reserved")
    leases = [start(world, "one"), start(world, "two")]
    provider = world.providers["spot"]

    async def scenario() -> None:
        observer = PoolObserver(world.new_process, "spot", POLL_SECONDS)
        async with observer.watch(leases[0].key) as one, observer.watch(leases[1].key) as two:
            for _ in range(4):
                await one.next()
                await two.next()
            assert provider.calls.count("observe") - 4 in (0, 1)

    soon(scenario())


def test_a_provider_that_does_not_answer_does_not_end_the_watch(world: FakeDeployment) -> None:
    lease = start(world)
    provider = world.providers[lease.pool]
    provider.is_reachable = False

    async def scenario() -> None:
        fired = asyncio.create_task(events(watching(lease)))
        await until(lambda: provider.calls.count("observe") >= 3)
        assert not fired.done()
        world.succeed(lease)
        provider.is_reachable = True
        assert len(await fired) == 1

    soon(scenario())


class RecordedPace(Pace):
    """Writes down how long the loop is told to pause, and lets it go on at once."""

    def __init__(self) -> None:
        super().__init__(POLL_SECONDS, lambda low, _high: low)
        self.pauses: list[float] = []

    def pause_seconds(self) -> float:
        self.pauses.append(super().pause_seconds())
        return 0.0


@pytest.mark.parametrize("wish", [None, timedelta(minutes=3)])
def test_a_provider_that_throttles_is_left_alone_and_asked_again_by_who_knows_that(
    world: FakeDeployment, wish: timedelta | None
) -> None:
    lease = start(world)
    provider = world.providers[lease.pool]
    provider.is_reachable, provider.retry_after = False, wish
    made: list[Dispatcher] = []

    def new_process() -> Dispatcher:
        made.append(world.new_process())
        return made[-1]

    async def scenario() -> None:
        observer = PoolObserver(new_process, lease.pool, POLL_SECONDS)
        observer._pace = pace = RecordedPace()
        async with observer.watch(lease.key) as watch:
            await until(lambda: len(pace.pauses) >= 3)
            hindered, processes = pace.pauses[:3], len(made)
            provider.is_reachable = True
            await watch.next()
        usual = 0.9 * POLL_SECONDS
        assert hindered == ([180.0] * 3 if wish else [2 * usual, 4 * usual, 8 * usual])
        assert (processes == 1) == (wish is not None)

    soon(scenario())


def test_a_ledger_that_cannot_be_asked_does_not_end_the_watch(world: FakeDeployment) -> None:
    lease = start(world)
    world.succeed(lease)
    failures = 3

    class Unavailable:
        def leases(self, keys: set[str]) -> object:
            nonlocal failures
            if failures:
                failures -= 1
                raise LedgerUnavailableError("the database is being restarted")
            return world.ledger.leases(keys)

        def __getattr__(self, name: str) -> object:
            return getattr(world.ledger, name)

    async def scenario() -> None:
        process = world.new_process()
        process.ledger = Unavailable()
        observer = PoolObserver(lambda: process, lease.pool, POLL_SECONDS)
        async with observer.watch(lease.key) as watch:
            assert (await watch.next()).lease.key == lease.key
        assert failures == 0

    soon(scenario())


def test_a_lease_that_the_ledger_does_not_know_fails_its_own_trigger_alone(
    world: FakeDeployment,
) -> None:
    lease = start(world)

    async def scenario() -> None:
        fired = asyncio.create_task(events(watching(lease)))
        with pytest.raises(LedgerError, match="has no lease"):
            await events(watching(lease, key="nightly/run/none/-1/1"))
        world.succeed(lease)
        assert len(await fired) == 1

    soon(scenario())


def test_a_mistake_of_ours_fails_the_trigger_instead_of_silencing_it(world: FakeDeployment) -> None:
    lease = start(world)

    def broken() -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with PoolObserver(broken, lease.pool, POLL_SECONDS).watch(lease.key) as watch:
            with pytest.raises(ZeroDivisionError):
                await watch.next()

    soon(scenario())


def test_the_log_shows_each_line_of_the_job_once(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = start(world)
    provider = world.providers[lease.pool]
    lines: list[str] = []
    monkeypatch.setattr(LeaseTrigger, "_show", lambda _, seen: lines.extend(seen.output.split()))

    async def scenario() -> None:
        fired = asyncio.create_task(events(watching(lease)))
        provider.print(lease.key, "one\n")
        await until(lambda: lines == ["one"])
        provider.print(lease.key, "two\n")
        world.succeed(lease)
        await fired

    soon(scenario())
    assert lines == ["one", "two"]


# ---- kills ----------------------------------------------------------------------------------------------------


def kill(
    lease: Lease, state: str | None, monkeypatch: pytest.MonkeyPatch, trigger: LeaseTrigger
) -> None:
    asked = create_autospec(context.task_state, return_value=state)
    monkeypatch.setattr("spillway.airflow.triggers.task_state", asked)
    trigger.task_instance = SimpleNamespace(
        dag_id=lease.task.dag_id,
        run_id=lease.task.run_id,
        task_id=lease.task.task_id,
        map_index=-1,
    )
    asyncio.run(trigger.on_kill())
    asked.assert_called_once_with(lease.task)


def test_a_kill_while_the_task_is_deferred_stops_nothing(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer that was paused kills every trigger, though nobody acted on the tasks."""
    lease = start(world)
    kill(lease, "deferred", monkeypatch, watching(lease))
    assert world.live == [lease.key]


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "running", None])
def test_a_kill_after_a_person_acted_stops_the_job(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch, state: str | None
) -> None:
    lease = start(world)
    kill(lease, state, monkeypatch, watching(lease))
    assert world.live == []
    assert world.ledger.open_leases() == []


def test_a_kill_of_an_old_trys_trigger_leaves_the_adopted_job_alone(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = start(world)
    world.dispatcher.begin(replace(world.request(), owner_try=2))
    kill(lease, "failed", monkeypatch, watching(lease))
    assert world.live == [lease.key]


def test_a_trigger_moves_a_job_that_should_be_elsewhere(world: FakeDeployment) -> None:
    for pool in ("reserved", "spot"):
        world.providers[pool].has_capacity = False
    deadline = world.clock() + timedelta(hours=8, minutes=1)
    hurried = replace(SPEC, work=timedelta(hours=8), deadline=deadline)
    step = world.dispatcher.begin(world.request(spec=hurried))
    assert isinstance(step, Running)
    lease = step.lease
    assert lease.pool == "on_demand"
    world.say(lease, step=60, total_steps=100, first_step=1, first_progress_at=world.clock())
    world.providers["reserved"].has_capacity = True

    def is_asked() -> bool:
        return world.ledger.lease(lease.key).state is LeaseState.MOVING

    async def scenario() -> None:
        fired = asyncio.create_task(events(watching(lease)))
        await until(is_asked)
        world.providers["on_demand"].preempt(lease.key)  # it saved and stopped
        (event,) = await fired
        assert event.payload == {"key": lease.key, "state": "moved"}

    soon(scenario())


def test_a_job_whose_words_cannot_be_read_stays_where_it_is(world: FakeDeployment) -> None:
    deadline = world.clock() + timedelta(hours=9)
    in_time = replace(SPEC, work=timedelta(hours=8), deadline=deadline)
    world.providers["reserved"].has_capacity = False
    step = world.dispatcher.begin(world.request(spec=in_time))
    assert isinstance(step, Running)
    lease = step.lease
    assert lease.pool == "spot"
    world.clock.advance(59 * 60)
    world.say(lease, step=50, total_steps=100, first_step=1, first_progress_at=world.clock())
    store = open_store(world.store_url)
    for path in store.list(".heartbeats"):
        store.put(path, b"{}")

    async def scenario() -> None:
        observer = PoolObserver(lambda: world.dispatcher, "spot", POLL_SECONDS)
        async with observer.watch(lease.key) as watch:
            for _ in range(2):
                assert (await watch.next()).lease.state is LeaseState.RUNNING

    soon(scenario())
    assert read_stop_request(store, lease.submission.prefix, lease.token) is None
