"""Heartbeats are written at a bounded rate, beside the work."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import StoreError
from spillway.model import Heartbeat
from spillway.runtime.clock import SystemClock
from spillway.runtime.heartbeats import read_heartbeat
from spillway.runtime.log_tail import MAX_BYTES, LogTail, kept_output
from spillway.runtime.notice import Notice, NoticeSeen
from spillway.runtime.pulse import BackgroundPulse, Tempo
from spillway.runtime.rate import Rate
from spillway.testing.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.checkpoints.store import BytesLike

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE_SECONDS = 30.0


class SlowStore(MemoryStore):
    """Counts writes, each of which waits until it may go on, and then fails as often as it is told to."""

    def __init__(self, *, failures: int = 0) -> None:
        super().__init__()
        self.writes = 0
        self.failures = failures
        self.has_begun = Event()
        self.may_go_on = Event()

    def put(self, path: str, data: BytesLike) -> None:
        self.writes += 1
        self.has_begun.set()
        self.may_go_on.wait(PATIENCE_SECONDS)
        if self.failures:
            self.failures -= 1
            raise StoreError("no room")
        super().put(path, data)


def beat(step: int) -> Heartbeat:
    return Heartbeat(token=1, written_at=NOW, step=step)


def make(store: MemoryStore, notice: Notice | None = None, **options: object) -> BackgroundPulse:
    tempo = Tempo(**{"news": 0.05, "urgent": 0.02, "idle": 60.0, **options})  # type: ignore[arg-type]
    return BackgroundPulse(
        store,
        "task",
        clock=SystemClock(),
        notice=notice or Notice(),
        tempo=tempo,
        read_log=lambda: "last line",
    )


def last(store: MemoryStore) -> Heartbeat | None:
    return read_heartbeat(store, "task", 1)


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def test_a_store_that_hangs_does_not_hold_up_the_work() -> None:
    store = SlowStore()
    with make(store) as pulse:
        pulse.tell(beat(0))
        assert store.has_begun.wait(PATIENCE_SECONDS)
        for step in range(1, 10_000):
            pulse.tell(beat(step))  # returns although nothing is written
        assert store.writes == 1
        store.may_go_on.set()
        wait_for(lambda: (seen := last(store)) and seen.step == 9999)
        assert store.writes <= 3


def test_a_loop_that_says_nothing_new_is_seen_to_be_alive() -> None:
    store = MemoryStore()
    with make(store, idle=0.02, news=0.02) as pulse:
        pulse.tell(beat(1))
        wait_for(lambda: last(store))
        first = last(store)
        assert first is not None
        wait_for(lambda: (seen := last(store)) and seen.alive_at != first.alive_at)
        again = last(store)
        assert again is not None
        assert (again.step, again.written_at) == (1, first.written_at)


def test_a_notice_is_told_at_once_whatever_the_tempo() -> None:
    store, notice = MemoryStore(), Notice()
    with make(store, notice, news=600.0, urgent=600.0) as pulse:
        pulse.tell(beat(1))
        wait_for(lambda: last(store))
        notice.receive(NoticeSeen(source="aws", reason="it ends"))
        wait_for(lambda: (seen := last(store)) and seen.notice == "aws: it ends")


def test_a_beat_carries_the_tail_of_the_log() -> None:
    store = MemoryStore()
    with make(store) as pulse:
        pulse.tell(beat(1))
        pulse.end(beat(2))
    seen = last(store)
    assert seen is not None
    assert (seen.step, seen.log_tail) == (2, "last line")
    assert list(store.list(".heartbeats")) == []


def test_a_write_that_fails_is_tried_again_with_the_next_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = SlowStore(failures=3)
    store.may_go_on.set()
    with make(store, idle=0.02, news=0.02) as pulse:
        pulse.tell(beat(1))
        wait_for(lambda: last(store))
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1


@given(
    st.floats(0, 100),
    st.booleans(),
    st.booleans(),
)
def test_there_is_never_less_than_the_least_time_between_two(
    since: float, has_news: bool, is_urgent: bool
) -> None:
    tempo = Tempo(news=5.0, urgent=1.0, idle=30.0)
    at = since + tempo.pause(since, has_news=has_news, is_urgent=is_urgent)
    assert at >= 1.0
    assert at <= max(since, 30.0)
    if not is_urgent:
        assert at >= 5.0


def test_a_bucket_is_written_to_less_often_than_a_folder() -> None:
    assert Tempo.of("file:///var/store").news < Tempo.of("s3://bucket/store").news


def test_the_rate_of_a_steady_job_is_exact_however_it_reports() -> None:
    rate = Rate()
    assert rate.note(10, 0.0) is None
    seen = [rate.note(10 + 2 * at, float(at)) for at in (1, 2, 7, 8, 100, 101)]
    assert seen == pytest.approx([2.0] * 6)


def test_the_rate_forgets_what_was_long_ago() -> None:
    rate = Rate()
    rate.note(0, 0.0)
    for second in range(1, 601):
        rate.note(10 * second, float(second))
    for second in range(601, 901):  # it has become slow
        value = rate.note(6000 + (second - 600), float(second))
    assert value is not None
    assert 1.0 < value < 1.5


def test_a_job_that_goes_back_begins_its_rate_anew() -> None:
    rate = Rate()
    rate.note(0, 0.0)
    rate.note(100, 1.0)
    assert rate.note(50, 2.0) is None
    assert rate.note(53, 3.0) == 3.0


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0.001, 1000)), min_size=1))
def test_the_rate_lies_between_the_slowest_and_the_fastest(
    moves: list[tuple[int, float]],
) -> None:
    rate, step, now = Rate(), 0, 0.0
    rate.note(step, now)
    for steps, seconds in moves:
        step, now = step + steps, now + seconds
        value = rate.note(step, now)
    rates = [steps / seconds for steps, seconds in moves]
    assert value is not None
    assert min(rates) * 0.99 - 1e-9 <= value <= max(rates) * 1.01 + 1e-9


def test_the_tail_has_the_last_lines_and_how_progress_bars_ended() -> None:
    tail = LogTail()
    tail.write("one\ntwo\n 10%\r 20%\r 99%\n")
    assert tail.read() == "one\ntwo\n 99%"
    assert tail.read(max_lines=2) == "two\n 99%"
    assert tail.read(max_bytes=8) == "two\n 99%"
    assert tail.read(max_bytes=7) == " 99%"


def test_the_tail_of_one_endless_line_is_its_end() -> None:
    tail = LogTail()
    tail.write("x" * MAX_BYTES + "end")
    assert tail.read(max_bytes=5) == "xxend"
    assert len(tail.read()) == MAX_BYTES


@given(st.lists(st.text(max_size=50)), st.integers(1, 200), st.integers(1, 10))
def test_the_tail_is_never_longer_than_asked(
    texts: list[str], max_bytes: int, max_lines: int
) -> None:
    tail = LogTail()
    for text in texts:
        tail.write(text)
    seen = tail.read(max_bytes=max_bytes, max_lines=max_lines)
    assert len(seen.encode(errors="replace")) <= max_bytes
    assert seen.count("\n") < max_lines


def test_what_is_printed_is_kept_and_still_printed(capsys: pytest.CaptureFixture[str]) -> None:

    with kept_output() as tail:
        sys.stdout.write("to people\n")
        sys.stderr.write("to errors\n")
        sys.stdout.writelines(["a\n", "b\n"])
        assert not sys.stdout.closed
    assert tail.read() == "to people\nto errors\na\nb"
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("to people\na\nb\n", "to errors\n")
