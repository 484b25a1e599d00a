"""The scheduler's request to stop is a notice that counts at once, whatever clock the scheduler has."""

from __future__ import annotations

from datetime import timedelta

import pytest

from spillway.errors import NoticeSourceError
from spillway.model import Resources, Submission
from spillway.runtime.notice import Notice
from spillway.runtime.notice.request import RequestWatcher
from spillway.runtime.notice.watcher import Patrol
from spillway.runtime.stop_request import StopRequest, ask_to_stop
from spillway.testing.manual_clock import ManualClock
from spillway.testing.stores import MemoryStore

SUBMISSION = Submission(
    key="dag/run/task/-1/1",
    pool="here",
    token=1,
    entry_point="package.module:train",
    arguments={},
    resources=Resources(),
    store="file:///store",
    prefix="task",
    grace_period=timedelta(seconds=30),
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def ask(store: MemoryStore, clock: ManualClock, *, token: int = 1, ahead: float = 0) -> None:
    asked_at = clock.now() + timedelta(seconds=ahead)
    stop_by = asked_at + timedelta(minutes=10)
    request = StopRequest(token=token, reason="moving", asked_at=asked_at, stop_by=stop_by)
    ask_to_stop(store, "task", request)


@pytest.mark.parametrize("ahead", [-7200.0, 0.0, 7200.0])
def test_a_request_to_stop_counts_at_once_by_the_time_that_it_gave(
    clock: ManualClock, ahead: float
) -> None:
    store, notice = MemoryStore(), Notice(clock=clock)
    patrol = Patrol(RequestWatcher(store, SUBMISSION, clock), notice, lead=timedelta(minutes=2))
    patrol.look()
    assert not notice.received
    ask(store, clock, ahead=ahead)
    patrol.look()
    assert notice.reason == "scheduler: moving"
    assert notice.seconds_left == 595
    clock.advance(100)
    patrol.look()
    assert notice.seconds_left == 495


def test_a_request_to_another_lease_is_not_ours(clock: ManualClock) -> None:
    store = MemoryStore()
    ask(store, clock, token=2)
    assert RequestWatcher(store, SUBMISSION, clock).look() is None


def test_a_request_that_cannot_be_read_is_no_notice(clock: ManualClock) -> None:
    store = MemoryStore()
    ask(store, clock)
    store.put(next(iter(store.list("task"))), b"nonsense")
    with pytest.raises(NoticeSourceError, match="not a request to stop"):
        RequestWatcher(store, SUBMISSION, clock).look()
