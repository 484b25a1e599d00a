from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from spillway.checkpoints.layout import manifest_names
from spillway.errors import FencedError, SpecError, StoreError
from spillway.runtime import Preempted, Session
from spillway.runtime.exchange import read_heartbeat
from spillway.runtime.notice import NoticeSeen
from spillway.runtime.session import DEFAULT_CHECKPOINT_INTERVAL
from spillway.testing.stores import InterruptedStore, MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Lab
    from spillway.model import Heartbeat


def heartbeat(lab: Lab, token: int = 1) -> Heartbeat:
    seen = read_heartbeat(lab.store, "task", token)
    assert seen is not None
    return seen


def test_a_first_session_begins_at_the_beginning(lab: Lab) -> None:
    assert lab.session().restore() is None


def test_the_next_session_goes_on_from_the_last_checkpoint(lab: Lab) -> None:
    lab.session().checkpoint(3, {"weights": [1.5]}, epoch=1)
    checkpoint = lab.session(token=2).restore()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.state, checkpoint.metadata) == (
        3,
        {"weights": [1.5]},
        {"epoch": 1},
    )


def test_a_session_that_asks_again_gets_its_own_checkpoint(lab: Lab) -> None:
    session = lab.session()
    assert session.restore() is None
    session.checkpoint(3, "a")
    checkpoint = session.restore()
    assert checkpoint is not None
    assert checkpoint.state == "a"


def test_a_fresh_start_ignores_what_there_is(lab: Lab) -> None:
    lab.session().checkpoint(3, "old")
    fresh = lab.session(token=2, fresh_start=True)
    assert fresh.restore() is None
    fresh.checkpoint(1, "new")
    checkpoint = lab.session(token=3).restore()
    assert checkpoint is not None
    assert checkpoint.state == "new"


def test_a_session_that_was_replaced_must_stop(lab: Lab) -> None:
    old = lab.session()
    old.restore()
    lab.session(token=2).restore()
    with pytest.raises(FencedError):
        old.checkpoint(1, "too late")


def test_it_is_time_to_save_once_the_interval_is_over(lab: Lab) -> None:
    session = lab.session()
    assert not session.should_checkpoint(1)
    lab.clock.advance(59)
    assert not session.should_checkpoint(1)
    lab.clock.advance(1)
    assert session.should_checkpoint(1)
    assert session.should_checkpoint()
    session.checkpoint(1, "state")
    assert not session.should_checkpoint(2)
    lab.clock.advance(60)
    assert not session.should_checkpoint(1)  # saved already
    assert session.should_checkpoint(2)


def test_the_interval_is_ten_minutes_when_nobody_gave_one(lab: Lab) -> None:
    session = lab.session(checkpoint_interval=None)
    assert session.checkpoint_interval == DEFAULT_CHECKPOINT_INTERVAL == timedelta(minutes=10)


def test_a_notice_makes_the_next_checkpoint_the_last(lab: Lab) -> None:
    session = lab.session()
    assert not session.preempted
    lab.notice.receive()
    assert session.preempted
    assert session.should_checkpoint(4)
    with pytest.raises(Preempted) as preempted:
        session.checkpoint(4, "state")
    assert preempted.value.step == 4
    checkpoint = lab.session(token=2).restore()
    assert checkpoint is not None
    assert checkpoint.step == 4


def test_a_notice_just_after_a_checkpoint_needs_no_other(lab: Lab) -> None:
    session = lab.session()
    session.checkpoint(4, "state")
    lab.notice.receive()
    assert session.should_checkpoint(4)
    with pytest.raises(Preempted):
        session.checkpoint(4, "state")
    assert [name.step for name in manifest_names(lab.store, "task")] == [4]


def test_advice_makes_one_checkpoint_even_if_it_came_before_the_work_began(lab: Lab) -> None:
    session = lab.session()
    lab.notice.advise(NoticeSeen(source="aws", reason="the risk is raised", is_advice=True))
    assert session.should_checkpoint(1)
    lab.clock.advance(1)
    session.checkpoint(1, "state")
    assert not session.should_checkpoint(2)


def test_code_that_catches_every_exception_does_not_catch_a_preemption() -> None:
    assert not issubclass(Preempted, Exception)


def test_only_the_last_checkpoints_are_kept(lab: Lab) -> None:
    session = lab.session()
    for step in range(1, 6):
        session.checkpoint(step, step)
    assert [name.step for name in manifest_names(lab.store, "task")] == [4, 5]


def test_a_state_that_cannot_be_saved_leaves_the_one_before(lab: Lab) -> None:
    session = lab.session()
    session.checkpoint(1, "good")
    with pytest.raises(SpecError, match=r"state\.model"):
        session.checkpoint(2, {"model": object()})
    checkpoint = lab.session(token=2).restore()
    assert checkpoint is not None
    assert checkpoint.state == "good"


@pytest.mark.parametrize("step", [-1, 10**12, 2.5, "3", None])
def test_a_step_that_is_no_number_of_steps_is_refused_at_once(lab: Lab, step: Any) -> None:
    with pytest.raises(SpecError, match=r"step is .*; give the number of steps done, from 0"):
        lab.session().checkpoint(step, "state")


def test_a_step_before_one_that_is_saved_is_refused_as_nobody_would_go_on_from_it(lab: Lab) -> None:
    session = lab.session()
    for step in (4, 8):
        session.checkpoint(step, f"epoch 1, {step}")
    with pytest.raises(
        SpecError, match=r"step is 4, and step 8 is saved already.*count steps on over"
    ):
        session.checkpoint(4, "epoch 2")
    session.checkpoint(12, "epoch 2")
    found = lab.session(2).restore()
    assert found is not None
    assert found.state == "epoch 2"


def test_a_lease_that_begins_anew_may_begin_at_any_step(lab: Lab) -> None:
    lab.session().checkpoint(8, "of another shape")
    session = lab.session(2)
    session.restore()
    session.checkpoint(1, "begun anew")
    found = lab.session(3).restore()
    assert found is not None
    assert found.state == "begun anew"


def test_a_lease_that_goes_back_past_a_damaged_checkpoint_saves_on_from_there(lab: Lab) -> None:
    session = lab.session()
    for step in (4, 8):
        session.checkpoint(step, step)
    (damaged,) = (path for path in lab.store.list("task/parts") if "-000000000008/" in path)
    lab.store.put(damaged, b"damaged")
    found = session.restore()
    assert found is not None
    assert found.step == 4
    session.checkpoint(6, "gone on")
    found = session.restore()
    assert found is not None
    assert found.state == "gone on"


def test_a_step_may_be_any_whole_number(lab: Lab) -> None:
    lab.session().checkpoint(cast("int", np.int64(3)), "state")
    checkpoint = lab.session(token=2).restore()
    assert checkpoint is not None
    assert checkpoint.step == 3


def test_progress_is_in_the_heartbeat(lab: Lab) -> None:
    session = lab.session()
    session.progress(1, 10, loss=2.5)
    seen = heartbeat(lab)
    assert (seen.step, seen.total_steps, seen.metrics) == (1, 10, {"loss": 2.5})
    assert seen.first_progress_at == seen.written_at == lab.clock.now()


def test_metrics_and_the_total_stay_until_they_change(lab: Lab) -> None:
    session = lab.session()
    session.progress(1, 10, loss=2.5, rate=3)
    session.progress(2, loss=2.0)
    assert session.heartbeat.metrics == {"loss": 2.0, "rate": 3.0}
    assert session.heartbeat.total_steps == 10


def test_a_loss_that_is_not_a_number_can_be_read_back(lab: Lab) -> None:
    lab.session().progress(1, loss=math.nan, bound=math.inf)
    assert math.isnan(heartbeat(lab).metrics["loss"])
    assert heartbeat(lab).metrics["bound"] == math.inf


def test_a_loss_that_is_not_a_number_is_remembered_with_a_checkpoint(lab: Lab) -> None:
    lab.session().checkpoint(1, {}, loss=math.nan, bounds=[-math.inf, {"upper": math.inf}], ok=None)
    restored = lab.session(token=2).restore()
    assert restored is not None
    loss = restored.metadata.pop("loss")
    assert isinstance(loss, float)
    assert math.isnan(loss)
    assert restored.metadata == {"bounds": [-math.inf, {"upper": math.inf}], "ok": None}


def test_heartbeats_are_written_once_a_second_at_most(lab: Lab) -> None:
    store = InterruptedStore(MemoryStore(), lambda: None, at=-1)
    lab.store = store
    session = lab.session()
    for step in range(1000):
        session.progress(step)
        lab.clock.advance(0.01)
    assert store.operations == 10
    session.end(succeeded=True)
    assert store.operations == 12  # the last one, and the removal of the one before
    assert heartbeat(lab).step == 999


def test_a_heartbeat_that_fails_does_not_stop_the_work(lab: Lab) -> None:
    def fail() -> None:
        raise StoreError("no room")

    store = InterruptedStore(lab.store, fail, at=0)
    lab.store = store
    session = lab.session()
    session.progress(1)
    lab.clock.advance(1)
    session.progress(2)
    assert heartbeat(lab).step == 2


def test_an_older_session_does_not_overwrite_what_a_newer_one_says(lab: Lab) -> None:
    old, new = lab.session(1), lab.session(2)
    new.progress(5)
    old.progress(9)
    assert (heartbeat(lab, 2).step, heartbeat(lab, 1).step) == (5, 9)


def test_useful_time_is_from_the_first_new_step_to_the_last_checkpoint(lab: Lab) -> None:
    session = lab.session()
    session.restore()
    lab.clock.advance(30)  # building the model
    session.progress(1)
    lab.clock.advance(60)
    session.checkpoint(10, "state")
    lab.clock.advance(20)  # lost when it fails
    session.progress(12)
    session.end(succeeded=False)
    seen = heartbeat(lab)
    assert seen.useful == timedelta(seconds=60)
    assert seen.checkpoint_step == 10


def test_all_time_from_the_first_new_step_is_useful_when_it_succeeds(lab: Lab) -> None:
    session = lab.session()
    session.restore()
    lab.clock.advance(30)
    session.progress(1)
    lab.clock.advance(60)
    session.end(succeeded=True)
    assert heartbeat(lab).useful == timedelta(seconds=60)


def test_steps_that_were_done_before_are_not_new(lab: Lab) -> None:
    lab.session().checkpoint(10, "state")
    session = lab.session(token=2)
    session.restore()
    assert heartbeat(lab, 2).checkpoint_step == 10
    session.progress(10)
    assert session.heartbeat.first_progress_at is None
    lab.clock.advance(5)
    session.progress(11)
    session.progress(12)
    assert session.heartbeat.first_progress_at == lab.clock.now()
    assert session.heartbeat.first_step == 11


def test_work_that_reports_no_steps_is_useful_when_it_succeeds(lab: Lab) -> None:
    session = lab.session()
    lab.clock.advance(7)
    session.end(succeeded=True)
    assert heartbeat(lab).useful == timedelta(seconds=7)


def test_a_heartbeat_that_is_not_ours_is_an_error_with_its_place(lab: Lab) -> None:
    lab.store.put("task/heartbeats/000000000001.json", b"{}")
    with pytest.raises(StoreError, match=r"task/heartbeats/000000000001\.json"):
        heartbeat(lab)


def test_a_session_without_a_scheduler_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    first = Session.local(tmp_path, checkpoint_interval=timedelta(0))
    assert first.restore() is None
    assert first.should_checkpoint(1)
    first.checkpoint(1, {"a": 1})
    assert first.scratch.is_dir()
    checkpoint = Session.local(tmp_path).restore()
    assert checkpoint is not None
    assert checkpoint.state == {"a": 1}
    assert Session.local(tmp_path, fresh_start=True).restore() is None
