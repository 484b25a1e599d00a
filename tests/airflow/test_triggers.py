"""The trigger: it survives serialisation, watches, and cancels only when a person ended its task."""

from __future__ import annotations

import asyncio

from airflow.triggers.base import BaseTrigger

from spillway.airflow.triggers import LeaseTrigger


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


def test_cleaning_up_stops_nothing() -> None:
    """It also runs whenever a triggerer restarts."""
    asyncio.run(make_trigger().cleanup())


def test_a_kill_after_the_event_stops_nothing() -> None:
    """A trigger that is slow to end is told to kill although the task went on; without a deployment, asking would fail."""
    trigger = make_trigger()
    trigger._fired = True
    asyncio.run(trigger.on_kill())
