"""Saving beside the work: nothing torn, nothing swallowed, nothing begun that cannot be finished."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from spillway.checkpoints.layout import manifest_names
from spillway.errors import FencedError, SpecError, StoreError, WrongCheckpointError
from spillway.runtime import Pickled, Preempted, Session
from spillway.runtime.notice import NoticeSeen
from spillway.runtime.saving import SMALL_BYTES
from spillway.testing.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Lab
    from spillway.checkpoints.store import BytesLike

DEADLINE_SECONDS = 30
LARGE = SMALL_BYTES // 8 + 1  # so many float64 are more than is waited for


class SlowStore(MemoryStore):
    """Arrays are written only once they may; before that, `meanwhile` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = Event()
        self.is_writing = Event()
        self.meanwhile: Callable[[], None] = lambda: None

    def put(self, path: str, data: BytesLike) -> None:
        if path.endswith(".safetensors"):
            self.is_writing.set()
            assert self.may_write.wait(DEADLINE_SECONDS)
            self.meanwhile()
        super().put(path, data)


@pytest.fixture
def slow(lab: Lab) -> Iterator[SlowStore]:
    lab.store = store = SlowStore()
    yield store
    store.may_write.set()


def state(value: float) -> dict[str, Any]:
    return {"weights": np.full(LARGE, value)}


def fail() -> None:
    raise StoreError("the disk is full")


def steps_saved(lab: Lab) -> list[int]:
    return [name.step for name in manifest_names(lab.store, "task")]


def test_the_work_goes_on_while_a_state_is_written_and_may_change_it(
    lab: Lab, slow: SlowStore
) -> None:
    session = lab.session()
    now = state(1.0)
    session.checkpoint(5, now)
    assert slow.is_writing.wait(DEADLINE_SECONDS)
    now["weights"][:] = 2.0
    session.progress(6)
    assert session.heartbeat.checkpoint_step is None
    slow.may_write.set()
    session.flush()
    assert session.heartbeat.checkpoint_step == 5
    restored = lab.session(token=2).restore()
    assert restored is not None
    assert (restored.state["weights"] == 1.0).all()


def test_what_is_remembered_with_a_state_is_as_it_was_too(lab: Lab, slow: SlowStore) -> None:
    session = lab.session()
    history: list[Any] = [1]
    session.checkpoint(5, state(1.0), history=history)
    history.append(2)
    slow.may_write.set()
    session.flush()
    restored = lab.session(token=2).restore()
    assert restored is not None
    assert restored.metadata == {"history": [1]}


def test_what_cannot_be_remembered_is_refused_at_once(lab: Lab) -> None:
    things: Any = {1, 2}
    with pytest.raises(SpecError, match="has to be JSON"):
        lab.session().checkpoint(5, {}, things=things)


def test_a_small_state_is_durable_when_the_call_returns(lab: Lab) -> None:
    lab.session().checkpoint(5, {"weights": np.zeros(3)})
    assert steps_saved(lab) == [5]


def test_a_step_that_is_being_written_is_not_due_again(lab: Lab, slow: SlowStore) -> None:
    session = lab.session()
    lab.clock.advance(60)
    session.checkpoint(5, state(1.0))
    lab.clock.advance(60)
    assert not session.should_checkpoint(5)
    assert session.should_checkpoint(6)


def test_the_next_save_waits_for_the_one_before(lab: Lab, slow: SlowStore) -> None:
    session = lab.session()
    session.checkpoint(5, state(1.0))
    slow.may_write.set()
    session.checkpoint(6, state(2.0))
    session.flush()
    assert steps_saved(lab) == [5, 6]


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.progress(6),
        lambda session: session.should_checkpoint(6),
        lambda session: session.checkpoint(6, {}),
        lambda session: session.flush(),
        lambda session: session.end(succeeded=True),
        lambda session: session.restore(),
    ],
    ids=["progress", "should_checkpoint", "checkpoint", "flush", "end", "restore"],
)
def test_a_save_that_failed_is_reported_by_the_next_call(
    lab: Lab, slow: SlowStore, call: Callable[[Session], object]
) -> None:
    session = lab.session()
    session.checkpoint(5, state(1.0))
    slow.meanwhile = fail
    slow.may_write.set()
    wait_until_written(session)
    with pytest.raises(StoreError, match="the disk is full"):
        call(session)
    assert session.heartbeat.checkpoint_step is None


def wait_until_written(session: Session) -> None:
    """Wait without asking the session, which would report."""
    future = session._saver._future
    assert future is not None
    future.exception(DEADLINE_SECONDS)


def test_after_a_failure_the_work_may_go_on_and_saving_is_due_at_once(
    lab: Lab, slow: SlowStore
) -> None:
    session = lab.session()
    lab.clock.advance(60)
    session.checkpoint(5, state(1.0))
    slow.meanwhile = fail
    slow.may_write.set()
    with pytest.raises(StoreError):
        session.flush()
    session.progress(6)
    assert session.should_checkpoint(6)
    slow.meanwhile = lambda: None
    session.checkpoint(6, state(2.0))
    session.flush()
    assert steps_saved(lab) == [6]


def break_down() -> None:
    raise ValueError("a bug")


@pytest.mark.parametrize("failure", [fail, break_down])
def test_a_failure_does_not_hide_that_the_work_failed(
    lab: Lab,
    slow: SlowStore,
    failure: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = lab.session()
    session.checkpoint(5, state(1.0))
    slow.meanwhile = failure
    slow.may_write.set()
    wait_until_written(session)
    assert "the checkpoint of step 5 was not saved" in caplog.text  # before anybody asks
    session.end(succeeded=False)


def test_a_lease_that_is_replaced_while_it_writes_learns_of_it_at_every_call(
    lab: Lab, slow: SlowStore
) -> None:
    old = lab.session()
    old.checkpoint(5, state(1.0))
    assert slow.is_writing.wait(DEADLINE_SECONDS)
    lab.session(token=2).restore()
    slow.may_write.set()
    with pytest.raises(FencedError):
        old.flush()
    for call in (lambda: old.progress(6), lambda: old.checkpoint(6, {})):
        with pytest.raises(FencedError):
            call()
    assert steps_saved(lab) == []


def test_the_last_of_all_steps_is_durable_when_the_call_returns(lab: Lab) -> None:
    session = lab.session()
    session.progress(10, 10)
    session.checkpoint(10, state(1.0))
    assert steps_saved(lab) == [10]


def test_the_end_waits_for_what_is_being_written(lab: Lab, slow: SlowStore) -> None:
    session = lab.session()
    session.checkpoint(5, state(1.0))
    slow.may_write.set()
    session.end(succeeded=True)
    assert steps_saved(lab) == [5]
    assert session.heartbeat.checkpoint_step == 5


def test_what_is_saved_counts_as_useful_until_it_was_copied(lab: Lab, slow: SlowStore) -> None:
    session = lab.session()
    session.progress(1)
    lab.clock.advance(50)
    session.checkpoint(5, state(1.0))
    lab.clock.advance(7)
    slow.may_write.set()
    session.flush()
    assert session.heartbeat.useful == timedelta(seconds=50)


def test_a_save_counts_in_the_heartbeat_before_the_work_calls_again(
    lab: Lab, slow: SlowStore
) -> None:
    session = lab.session()
    session.progress(1)
    lab.clock.advance(50)
    session.checkpoint(5, state(1.0))
    lab.clock.advance(7)
    slow.may_write.set()
    wait_until_written(session)
    seen = session.heartbeat
    assert (seen.checkpoint_step, seen.useful) == (5, timedelta(seconds=50))
    assert seen.written_at == lab.clock.now()
    lab.clock.advance(3600)
    session.flush()
    assert session.heartbeat == replace(
        seen,
        written_at=lab.clock.now(),
        checkpoint_interval=session.checkpoint_interval,
        expected_loss=session.heartbeat.expected_loss,
    )


def test_memory_is_allocated_once_for_all_saves(lab: Lab) -> None:
    session = lab.session()
    session.checkpoint(1, state(1.0))
    session.flush()
    memory = session._saver._staging._memory
    for step in range(2, 5):
        session.checkpoint(step, state(step))
    session.flush()
    assert session._saver._staging._memory is memory


# ---- at notice -----------------------------------------------------------------------------------------------


def give_notice(lab: Lab, seconds_left: float | None) -> None:
    lab.notice.receive(NoticeSeen(source="test", reason="spot", seconds_left=seconds_left))


def measured(lab: Lab, slow: SlowStore, seconds: float) -> Session:
    """Return a session that has saved step 5, which took so long."""
    session = lab.session()
    slow.meanwhile = lambda: lab.clock.advance(seconds)
    slow.may_write.set()
    session.checkpoint(5, state(1.0))
    session.flush()
    slow.meanwhile = lambda: None
    return session


def test_what_is_being_written_at_notice_is_waited_for_and_saved_again(
    lab: Lab, slow: SlowStore
) -> None:
    session = lab.session()
    session.checkpoint(5, state(1.0))
    lab.notice.receive()
    slow.may_write.set()
    with pytest.raises(Preempted) as preempted:
        session.checkpoint(6, state(2.0))
    assert preempted.value.step == 6
    assert steps_saved(lab) == [5, 6]


def test_a_save_that_would_take_longer_than_is_left_is_not_begun(lab: Lab, slow: SlowStore) -> None:
    session = measured(lab, slow, 20)
    give_notice(lab, 19)
    with pytest.raises(Preempted, match="with step 5 saved") as preempted:
        session.checkpoint(6, state(2.0))
    assert preempted.value.step == 5
    assert steps_saved(lab) == [5]


@pytest.mark.parametrize("left", [21, None])
def test_a_save_that_fits_or_may_fit_is_begun(
    lab: Lab, slow: SlowStore, left: float | None
) -> None:
    session = measured(lab, slow, 20)
    give_notice(lab, left)
    with pytest.raises(Preempted, match="with step 6 saved"):
        session.checkpoint(6, state(2.0))


def test_a_state_that_has_grown_is_expected_to_take_longer(lab: Lab, slow: SlowStore) -> None:
    session = measured(lab, slow, 20)
    give_notice(lab, 30)
    with pytest.raises(Preempted, match="with step 5 saved"):
        session.checkpoint(6, {"weights": np.zeros(2 * LARGE)})


def test_time_that_the_save_in_flight_takes_is_not_left(lab: Lab, slow: SlowStore) -> None:
    session = measured(lab, slow, 20)
    slow.may_write.clear()
    session.checkpoint(6, state(2.0))
    give_notice(lab, 30)
    slow.meanwhile = lambda: lab.clock.advance(15)
    slow.may_write.set()
    with pytest.raises(Preempted, match="with step 6 saved"):
        session.checkpoint(7, state(3.0))


def test_the_first_save_is_tried_as_nobody_knows_how_long_it_takes(lab: Lab) -> None:
    session = lab.session()
    give_notice(lab, 1)
    with pytest.raises(Preempted, match="with step 1 saved"):
        session.checkpoint(1, state(1.0))


def test_a_failed_save_before_the_notice_does_not_keep_the_last_from_being_tried(
    lab: Lab, slow: SlowStore
) -> None:
    session = lab.session()
    session.checkpoint(5, state(1.0))
    slow.meanwhile = fail
    slow.may_write.set()
    wait_until_written(session)
    slow.meanwhile = lambda: None
    lab.notice.receive()
    with pytest.raises(Preempted, match="with step 6 saved"):
        session.checkpoint(6, state(2.0))


# ---- how often -----------------------------------------------------------------------------------------------


def test_the_interval_follows_what_saving_costs_once_that_is_measured(
    lab: Lab, slow: SlowStore
) -> None:
    session = lab.session(preemptions_per_hour=2.0)
    assert session.checkpoint_interval == timedelta(minutes=1)
    assert session.heartbeat.checkpoint_reason == "it was asked for"
    slow.meanwhile = lambda: lab.clock.advance(30)
    slow.may_write.set()
    session.checkpoint(1, state(1.0))
    session.flush()
    assert session.checkpoint_interval == timedelta(seconds=30)  # the copy took no time at all
    assert session.heartbeat.checkpoint_interval == timedelta(seconds=30)
    assert "takes that long to be written" in session.heartbeat.checkpoint_reason
    assert session.heartbeat.expected_loss == timedelta(seconds=45)


def test_the_log_says_the_interval_its_reason_and_what_a_preemption_costs_when_it_changes(
    lab: Lab, slow: SlowStore, caplog: pytest.LogCaptureFixture
) -> None:
    name = "spillway.runtime.session"
    caplog.set_level(logging.INFO, name)

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == name]

    session = lab.session(preemptions_per_hour=2.0)
    asked = "a checkpoint every 60 s: it was asked for; a preemption costs 30 s of work on average"
    assert said() == [asked]
    slow.meanwhile = lambda: lab.clock.advance(30)
    slow.may_write.set()
    for step in range(1, 4):
        session.checkpoint(step, state(step))
        session.flush()
    measured = (
        "a checkpoint every 30 s: a checkpoint takes that long to be written; "
        "a preemption costs 45 s of work on average"
    )
    assert said() == [asked, measured]  # and not at each save


SMALL = {"weights": np.zeros(3)}


def test_a_small_save_on_a_slow_store_costs_no_more_than_it_was_waited_for(
    lab: Lab, slow: SlowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spillway.runtime.saving.PATIENCE", timedelta(0))
    session = lab.session(preemptions_per_hour=2.0)
    slow.meanwhile = lambda: lab.clock.advance(30)
    session.checkpoint(1, SMALL)
    slow.may_write.set()
    session.flush()
    assert session.checkpoint_interval == timedelta(seconds=30)  # it was not waited for at all


@pytest.mark.parametrize("with_files", [False, True])
def test_a_save_that_is_waited_for_costs_all_of_that(
    lab: Lab, slow: SlowStore, *, with_files: bool
) -> None:
    session = lab.session(preemptions_per_hour=2.0)
    slow.meanwhile = lambda: lab.clock.advance(30)
    slow.may_write.set()
    (lab.folder / "vocabulary").write_text("a b c")
    session.checkpoint(1, SMALL, files=lab.folder / "vocabulary" if with_files else None)
    assert session.checkpoint_interval == timedelta(hours=(2 * (30 / 3600) / 2) ** 0.5)
    assert "a save costs 30 s of work (measured)" in session.heartbeat.checkpoint_reason


def test_without_a_hazard_the_interval_that_was_asked_for_stays(lab: Lab) -> None:
    session = lab.session(checkpoint_interval=timedelta(seconds=7))
    session.checkpoint(1, "state")
    assert session.checkpoint_interval == timedelta(seconds=7)


# ---- what is loaded ------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_workload_is_refused_with_the_remedies(lab: Lab) -> None:
    lab.session(entry_point="old:train").checkpoint(3, {"a": 1})
    with pytest.raises(
        WrongCheckpointError, match=r"saved by 'old:train'.*fresh start.*saved_by='old:train'"
    ):
        lab.session(token=2, entry_point="new:train").restore()
    restored = lab.session(token=3, entry_point="new:train").restore(saved_by="old:train")
    assert restored is not None
    assert restored.state == {"a": 1}


def test_a_checkpoint_of_another_shape_is_refused_with_the_place(lab: Lab) -> None:
    model = torch.nn.Linear(3, 2)
    lab.session().checkpoint(3, {"model": model.state_dict()})
    other = {"model": torch.nn.Linear(3, 4).state_dict()}
    with pytest.raises(
        WrongCheckpointError, match=r"\['weight'\] is .*\(2, 3\).* and .*\(4, 3\) here"
    ):
        lab.session(token=2).restore(like=other)
    assert lab.session(token=3).restore(like={"model": model.state_dict()})


def test_a_pickle_is_run_only_where_it_is_asked_for_by_name(lab: Lab) -> None:
    lab.session().checkpoint(3, {"odd": Pickled.of({1, 2, 3})})
    restored = lab.session(token=2).restore()
    assert restored is not None
    assert isinstance(restored.state["odd"], Pickled)
    assert restored.state["odd"].load() == {1, 2, 3}


def test_state_and_files_are_saved_together(lab: Lab) -> None:
    folder = lab.folder / "tokenizer"
    folder.mkdir()
    (folder / "vocabulary").write_text("a b c")
    lab.session().checkpoint(3, {"weights": np.ones(LARGE)}, files=folder)
    assert steps_saved(lab) == [3]
    restored = lab.session(token=2).restore()
    assert restored is not None
    assert (restored.state["weights"] == 1).all()
    place = restored.files(into=lab.folder / "new")
    assert (place / "vocabulary").read_text() == "a b c"
