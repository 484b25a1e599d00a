"""What a notice says, who may tell it, and when a watcher's word becomes one."""

from __future__ import annotations

import logging
import os
import re
import signal
from datetime import timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import NoticeSourceError, SpecError
from spillway.runtime.notice import Notice, NoticeSeen
from spillway.runtime.notice.choice import choose_watchers, detect, grace_period, lead
from spillway.runtime.notice.watcher import Lookout, Patrol
from spillway.runtime.signals import heard_at_once, listen, notice_signals
from spillway.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LEAD = timedelta(minutes=2)


def seen(seconds_left: float | None = None, source: str = "aws", **facts: bool) -> NoticeSeen:
    return NoticeSeen(source=source, reason="it ends", seconds_left=seconds_left, **facts)


class Script:
    """A watcher that says one thing after another, and the last one for ever."""

    name = "script"
    period_seconds = 5.0

    def __init__(self, *answers: NoticeSeen | Exception | None) -> None:
        self.answers = list(answers)

    def look(self) -> NoticeSeen | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_without_a_notice_nothing_is_known() -> None:
    notice = Notice(grace_period=timedelta(seconds=30))
    assert (notice.received, notice.deadline, notice.seconds_left, notice.reason) == (
        False,
        None,
        None,
        "",
    )


def test_the_deadline_is_the_vendor_s_and_else_the_grace_period() -> None:
    clock = ManualClock()
    notice = Notice(grace_period=timedelta(seconds=30), clock=clock)
    notice.receive(seen())
    assert notice.seconds_left == 30
    clock.advance(10)
    notice.receive(seen(100, source="azure"))
    assert notice.seconds_left == 20  # the nearer one holds
    notice.receive(seen(5))
    assert notice.seconds_left == 5
    clock.advance(9)
    assert notice.seconds_left == 0
    assert notice.reason == "aws: it ends; azure: it ends"


@pytest.mark.parametrize("grace", [None, timedelta(0)])
def test_when_nobody_knows_how_long_there_is_no_deadline(grace: timedelta | None) -> None:
    notice = Notice(grace_period=grace)
    notice.receive()
    assert notice.received
    assert notice.deadline is None


def test_a_grace_period_that_is_learned_after_the_notice_counts() -> None:
    notice = Notice(clock=ManualClock())
    notice.receive()
    notice.grace_period = timedelta(seconds=7)
    assert notice.seconds_left == 7


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 500) | st.none()), min_size=1))
def test_the_deadline_never_moves_away(told: list[tuple[float, float | None]]) -> None:
    clock = ManualClock()
    notice = Notice(grace_period=timedelta(seconds=60), clock=clock)
    before = float("inf")
    for pause, left in told:
        clock.advance(pause)
        notice.receive(seen(left))
        assert notice.deadline is not None
        assert notice.deadline <= before
        before = notice.deadline


def test_who_waits_for_a_notice_is_woken_once_for_each_thing_new() -> None:
    notice = Notice(clock=ManualClock())
    woken: list[str] = []
    notice.wake_by(lambda: woken.append("early"))
    notice.receive(seen(60))
    notice.receive(seen(60))
    notice.wake_by(lambda: woken.append("late"))
    assert woken == ["early", "late"]
    notice.receive(seen(10))
    assert woken == ["early", "late", "early", "late"]


def test_what_is_far_away_is_advice_until_it_is_near() -> None:
    notice = Notice(clock=ManualClock())
    patrol = Patrol(Script(seen(123), seen(119)), notice, lead=LEAD)
    assert patrol.look() == pytest.approx(3)  # looks again just when it is due
    assert not notice.received
    assert notice.advised_at is not None
    patrol.look()
    assert notice.received


def test_a_limit_that_is_days_away_is_no_news() -> None:
    notice = Notice(clock=ManualClock())
    watcher = Script(seen(7 * 86400.0))
    pause = Patrol(watcher, notice, lead=LEAD).look()
    assert notice.advised_at is None
    assert not notice.received
    assert pause == watcher.period_seconds


def test_advice_is_no_notice_and_is_taken_once() -> None:
    clock = ManualClock()
    notice = Notice(clock=clock)
    patrol = Patrol(Script(seen(is_advice=True)), notice, lead=LEAD)
    patrol.look()
    clock.advance(5)
    patrol.look()
    assert not notice.received
    assert notice.advised_at == 0


@pytest.mark.parametrize("cannot", [NoticeSourceError("no route"), ValueError("no sense")], ids=str)
def test_a_watcher_that_cannot_ask_says_so_once_and_goes_on(
    caplog: pytest.LogCaptureFixture, cannot: Exception
) -> None:
    notice = Notice()
    script = Script(cannot, cannot, None, cannot, seen(60))
    patrol = Patrol(script, notice, lead=LEAD)
    with caplog.at_level(logging.WARNING):
        patrol.look()
        patrol.look()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(cannot) in caplog.text
    patrol.look()
    patrol.look()
    assert not notice.received
    patrol.look()
    assert notice.received


def test_a_lookout_finds_what_its_watchers_see() -> None:
    notice = Notice()
    script = Script(None, seen(60))
    script.period_seconds = 0.01
    woken: SimpleQueue[None] = SimpleQueue()
    notice.wake_by(lambda: woken.put(None))
    with Lookout([script, Script(NoticeSourceError("no route"))], notice, lead=LEAD):
        woken.get(timeout=30)
    assert notice.reason == "aws: it ends"


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGVTALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_signal_is_a_notice_with_the_pool_s_grace_period() -> None:
    notice = Notice(grace_period=timedelta(seconds=30), clock=ManualClock())
    listen(notice)
    os.kill(os.getpid(), signal.SIGTERM)
    assert notice.seconds_left == 30
    assert notice.reason == "signal: SIGTERM"


@pytest.mark.usefixtures("handlers")
def test_the_signal_that_slurm_was_asked_for_leaves_time_until_the_job_s_end() -> None:
    from time import time

    variables = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time()) + 600)}
    notice = Notice(grace_period=timedelta(seconds=30))
    listen(notice, notice_signals(variables), variables)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert notice.seconds_left is not None
    assert 500 < notice.seconds_left <= 600
    os.kill(os.getpid(), signal.SIGTERM)
    assert notice.seconds_left <= 30


@pytest.mark.usefixtures("handlers")
def test_signals_that_interrupt_everything_break_nothing() -> None:
    variables = {"SPILLWAY_NOTICE_SIGNALS": "VTALRM"}
    notice = Notice(grace_period=timedelta(hours=1))
    woken: SimpleQueue[None] = SimpleQueue()
    notice.wake_by(lambda: woken.put(None))
    listen(notice, notice_signals(variables), variables)
    with heard_at_once(notice, variables):
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0002, 0.0002)
        try:
            for number in range(20_000):
                notice.receive(seen(float(3600 - number % 50), source=f"source {number % 7}"))
                assert notice.seconds_left is not None
                assert notice.reason
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    assert notice.received
    assert "signal: SIGVTALRM" in notice.reason


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (signal.SIGTERM,)),
        ({"SLURM_JOB_ID": "7"}, (signal.SIGTERM, signal.SIGUSR1)),
        ({"SPILLWAY_NOTICE_SIGNALS": "TERM, SIGUSR2"}, (signal.SIGTERM, signal.SIGUSR2)),
    ],
)
def test_which_signals_are_a_notice(
    variables: dict[str, str], expected: tuple[signal.Signals, ...]
) -> None:
    assert notice_signals(variables) == expected


@pytest.mark.parametrize("name", ["NONSENSE", "KILL", "STOP"])
def test_a_signal_that_cannot_be_taken_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="TERM,USR1"):
        notice_signals({"SPILLWAY_NOTICE_SIGNALS": name})


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("sys_vendor", "Amazon EC2\n", "aws"),
        ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77\n", "azure"),
        ("product_name", "Google Compute Engine\n", "gcp"),
    ],
)
def test_a_machine_s_firmware_says_whose_it_is(
    tmp_path: Path, file: str, text: str, name: str
) -> None:
    (tmp_path / file).write_text(text)
    assert detect({}, tmp_path) == [name]


def test_a_machine_that_is_no_cloud_s_has_no_watcher(tmp_path: Path) -> None:
    (tmp_path / "sys_vendor").write_text("QEMU\n")
    assert choose_watchers({}, tmp_path) == []
    assert choose_watchers({}, tmp_path / "nothing") == []


def test_watchers_are_those_that_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert choose_watchers({"SPILLWAY_NOTICE": "none"}, tmp_path) == []
    names = [w.name for w in choose_watchers({"SPILLWAY_NOTICE": "gcp, slurm,gcp"}, tmp_path)]
    assert names == ["gcp preempted", "gcp maintenance-event", "slurm"]
    disabled = {"AWS_EC2_METADATA_DISABLED": "true"}
    assert detect(disabled, tmp_path) == []


def test_a_watcher_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(SpecError, match="aws, azure, gcp, slurm"):
        choose_watchers({"SPILLWAY_NOTICE": "ibm"})


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:http", "http://169.254.169.254"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "169.254.169.254", "http://169.254.169.254"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "https://169.254.169.254", "http://169.254.169.254"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00:ec2::254", "http://169.254.169.254"),
        ("SPILLWAY_AZURE_METADATA_ENDPOINT", "http://", "http://169.254.169.254"),
        ("GCE_METADATA_HOST", "127.0.0.1:99999", "host:port"),
        ("GCE_METADATA_HOST", "", "host:port"),
    ],
)
def test_an_address_that_is_none_is_refused_with_its_variable(
    tmp_path: Path, variable: str, value: str, remedy: str
) -> None:
    with pytest.raises(SpecError, match=rf"{variable} is '{re.escape(value)}'; .*{remedy}"):
        choose_watchers({variable: value}, tmp_path)


def test_a_metadata_service_may_have_an_address_of_its_own(tmp_path: Path) -> None:
    variables = {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[fd00:ec2::254]/",
        "GCE_METADATA_HOST": "127.0.0.1:8080",
    }
    assert len(choose_watchers(variables, tmp_path)) == 3


def test_the_machine_s_own_grace_period_goes_before_what_the_pool_promised() -> None:
    promised = timedelta(seconds=30)
    assert grace_period({}, promised) == promised
    assert grace_period({"SPILLWAY_GRACE_SECONDS": "7.5"}, promised) == timedelta(seconds=7.5)
    assert grace_period({"SPILLWAY_GRACE_SECONDS": "0"}, promised) == timedelta(0)


def test_an_early_notice_counts_two_minutes_before_the_end_or_the_longer_grace_period() -> None:
    assert lead({}, timedelta(seconds=30)) == lead({}, None) == timedelta(minutes=2)
    assert lead({}, timedelta(minutes=10)) == timedelta(minutes=10)
    assert lead({"SPILLWAY_NOTICE_LEAD_SECONDS": "0"}, timedelta(minutes=10)) == timedelta(0)
