"""A job that does not stop in time after a notice is spoken for, and exits as preempted."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING

import pytest

from spillway.runtime import exit_codes
from spillway.runtime.clock import SystemClock
from spillway.runtime.exchange import Outcome, read_heartbeat, read_result
from spillway.runtime.last_words import LastWords
from spillway.runtime.notice import Notice, NoticeSeen
from spillway.testing.metadata_vendors import (
    FakeAwsMetadata,
    FakeAzureMetadata,
    FakeGoogleMetadata,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Lab, Wrappers
    from spillway.runtime.exchange import Result

PATIENCE_SECONDS = 60.0


class Words:
    """What was said, and with which code the process would have exited."""

    def __init__(self) -> None:
        self.said = 0
        self.left: SimpleQueue[int] = SimpleQueue()

    def say(self) -> None:
        self.said += 1


def seen(seconds_left: float | None) -> NoticeSeen:
    return NoticeSeen(source="aws", reason="it ends", seconds_left=seconds_left)


def test_a_job_that_does_not_stop_in_time_is_spoken_for() -> None:
    notice, words = Notice(), Words()
    last = LastWords(notice, words.say, clock=SystemClock(), leave=words.left.put)
    last.__enter__()
    notice.receive(seen(0.2))
    assert words.left.get(timeout=PATIENCE_SECONDS) == exit_codes.PREEMPTED
    assert words.said == 1


def test_a_job_that_ends_by_itself_has_the_word() -> None:
    notice, words = Notice(), Words()
    with LastWords(notice, words.say, clock=SystemClock(), leave=words.left.put) as last:
        notice.receive(seen(600))
    notice.receive(seen(0))
    last._thread.join(PATIENCE_SECONDS)
    assert not last._thread.is_alive()
    assert (words.said, words.left.empty()) == (0, True)


def test_where_nobody_knows_the_deadline_the_job_is_left_alone() -> None:
    notice, words = Notice(grace_period=timedelta(0)), Words()
    with LastWords(notice, words.say, clock=SystemClock(), leave=words.left.put):
        notice.receive(seen(None))
        with pytest.raises(Empty):
            words.left.get(timeout=0.05)


def test_a_store_that_hangs_does_not_keep_the_process_from_leaving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("spillway.runtime.last_words.MOST_SECONDS", 0.05)
    notice, words, hang = Notice(), Words(), Event()
    last = LastWords(
        notice,
        lambda: hang.wait(PATIENCE_SECONDS) and None,
        clock=SystemClock(),
        leave=words.left.put,
    )
    last.__enter__()
    notice.receive(seen(0))
    assert words.left.get(timeout=PATIENCE_SECONDS) == exit_codes.PREEMPTED
    hang.set()


def wait_for(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def wait_for_step(lab: Lab) -> None:
    def has_saved() -> bool:
        beat = read_heartbeat(lab.store, "task", 1)
        return beat is not None and beat.checkpoint_step is not None

    wait_for(has_saved)


def result_of(lab: Lab) -> Result:
    result = read_result(lab.store, "task", 1)
    assert result is not None
    return result


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_that_never_looks_leaves_as_preempted_and_says_why(
    lab: Lab, wrappers: Wrappers, number: signal.Signals
) -> None:
    submission = lab.submission("sample_jobs:never_look", grace_period=timedelta(seconds=2))
    process = wrappers.start(submission, SLURM_JOB_ID="7")
    wait_for_step(lab)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.PREEMPTED == os.EX_TEMPFAIL, output
    result = result_of(lab)
    assert result.outcome is Outcome.PREEMPTED
    assert (result.reason, result.checkpoint_step) == (
        f"signal: {number.name}; it did not come to its next checkpoint in time: that of step 1 stands",
        1,
    )
    assert "working without looking" in result.log_tail
    beat = read_heartbeat(lab.store, "task", 1)
    assert beat is not None
    assert beat.notice == f"signal: {number.name}"
    assert list(lab.store.list(".heartbeats")) == []


def test_a_checkpoint_that_was_saved_beside_the_work_is_known_though_the_work_never_looks(
    lab: Lab, wrappers: Wrappers
) -> None:
    entry_point = "sample_jobs:save_beside_and_never_look"
    process = wrappers.start(lab.submission(entry_point, grace_period=timedelta(seconds=2)))
    wait_for_step(lab)  # a heartbeat says so
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.PREEMPTED, output
    result = result_of(lab)
    assert result.checkpoint_step == 1
    assert "that of step 1 stands" in result.reason


def test_a_signal_is_heard_while_the_main_thread_is_in_c_code(lab: Lab, wrappers: Wrappers) -> None:
    submission = lab.submission("sample_jobs:stay_in_c", grace_period=timedelta(seconds=2))
    process = wrappers.start(submission)
    wait_for_step(lab)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.PREEMPTED, output
    assert result_of(lab).checkpoint_step == 1


@pytest.fixture(params=["aws", "azure", "gcp"])
def cloud(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[dict[str, str], Callable[[], None], str]]:
    match request.param:
        case "aws":
            with FakeAwsMetadata() as aws:
                variables = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": aws.url}
                yield variables, lambda: aws.interrupt(timedelta(minutes=2)), "EC2 will terminate"
        case "azure":
            with FakeAzureMetadata() as azure:
                variables = {"SPILLWAY_AZURE_METADATA_ENDPOINT": azure.url}
                notify = lambda: azure.schedule("Preempt", timedelta(seconds=30))  # noqa: E731
                yield variables, notify, "Azure: Preempt"
        case _:
            with FakeGoogleMetadata() as gcp:
                variables = {"GCE_METADATA_HOST": gcp.address}
                yield variables, lambda: gcp.set("instance/preempted", "TRUE"), "preempts"


def test_a_process_saves_and_leaves_when_its_cloud_gives_notice(
    lab: Lab, wrappers: Wrappers, cloud: tuple[dict[str, str], Callable[[], None], str]
) -> None:
    variables, notify, words = cloud
    arguments = {"steps": 10, "gate": str(lab.folder / "gate")}
    process = wrappers.start(lab.submission("sample_jobs:train", arguments=arguments), **variables)
    wait_for(lambda: (beat := read_heartbeat(lab.store, "task", 1)) and beat.step)
    notify()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.PREEMPTED, output
    result = result_of(lab)
    assert words in result.reason
    assert result.checkpoint_step == 5


def test_a_process_near_the_end_of_its_slurm_job_saves_and_leaves(
    lab: Lab, wrappers: Wrappers
) -> None:
    arguments = {"steps": 10, "gate": str(lab.folder / "gate")}
    process = wrappers.start(
        lab.submission("sample_jobs:train", arguments=arguments),
        SLURM_JOB_ID="7",
        SLURM_JOB_END_TIME=str(int(time.time()) + 100),
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.PREEMPTED, output
    assert result_of(lab).reason == "slurm: the Slurm job reaches its time limit"


def test_advice_to_save_soon_makes_a_checkpoint_and_the_job_goes_on(
    lab: Lab, wrappers: Wrappers
) -> None:
    gate = lab.folder / "gate"
    with FakeAwsMetadata() as aws:
        aws.rebalance()
        process = wrappers.start(
            lab.submission(
                "sample_jobs:train",
                arguments={"steps": 10, "gate": str(gate)},
                checkpoint_interval=timedelta(hours=1),
            ),
            AWS_EC2_METADATA_SERVICE_ENDPOINT=aws.url,
        )
        wait_for_step(lab)
        gate.touch()
        output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.SUCCEEDED, output


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SPILLWAY_NOTICE", "ibm", "there is none"),
        ("SPILLWAY_NOTICE_SIGNALS", "NONSENSE", "no signal"),
        ("SPILLWAY_GRACE_SECONDS", "long", "write a number of seconds"),
        ("SPILLWAY_NOTICE_LEAD_SECONDS", "long", "write a number of seconds"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:http", "write it as http://"),
        ("SPILLWAY_SCRATCH", "/not/there", "name a folder that is there"),
        ("SPILLWAY_SCRATCH", "/dev/null", "name a folder that is there"),
    ],
)
def test_a_setting_that_is_wrong_stops_the_job_before_it_begins(
    lab: Lab, wrappers: Wrappers, name: str, value: str, message: str
) -> None:
    process = wrappers.start(lab.submission(), **{name: value})
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.BAD_ENTRY_POINT, output
    assert f"{name} " in output
    assert message in output
