"""The trigger: it survives serialisation, watches, and cancels only when a person ended its task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from airflow.triggers.base import BaseTrigger

from spillway.airflow.observer import Sighting
from spillway.airflow.triggers import LeaseTrigger
from spillway.model import Heartbeat
from spillway.testing.fake_deployment import running

if TYPE_CHECKING:
    from spillway.testing.fake_deployment import FakeDeployment


def make_trigger(**changes: object) -> LeaseTrigger:
    arguments = {
        "key": "d/r/t/-1/1",
        "pool": "spot",
        "owner_try": 1,
        "conn_id": "spillway_default",
        "poll_seconds": 1.0,
        "not_before": "2026-01-01T00:00:00+00:00",
    }
    return LeaseTrigger(**{**arguments, **changes})


def test_a_trigger_survives_serialisation() -> None:
    path, arguments = make_trigger().serialize()
    module, _, name = path.rpartition(".")
    again = getattr(__import__(module, fromlist=[name]), name)(**arguments)
    assert isinstance(again, BaseTrigger)
    assert again.serialize() == (path, arguments)


@pytest.mark.parametrize("step", [None, 3])
def test_a_notice_is_in_the_tasks_log_once_whether_or_not_the_job_counts_steps(
    world: FakeDeployment, capsys: pytest.CaptureFixture[str], step: int | None
) -> None:
    trigger, lease = make_trigger(), running(world.dispatcher.begin(world.request()))
    for notice in ("", "signal: SIGTERM", "signal: SIGTERM"):
        beat = Heartbeat(token=1, written_at=world.clock(), step=step, notice=notice)
        trigger._show(Sighting(lease=lease, heartbeat=beat, output=""))
    assert capsys.readouterr().out.count("notice: signal: SIGTERM") == 1


def test_cleaning_up_stops_nothing() -> None:
    """It also runs whenever a triggerer restarts."""
    asyncio.run(make_trigger().cleanup())


def test_a_kill_after_the_event_stops_nothing() -> None:
    """A trigger that is slow to end is told to kill although the task went on; without a deployment, asking would fail."""
    trigger = make_trigger()
    trigger._fired = True
    asyncio.run(trigger.on_kill())
