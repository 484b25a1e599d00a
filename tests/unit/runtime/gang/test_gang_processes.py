"""Gangs as several real processes of this machine: they start, stop and end as one."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import latest
from spillway.runtime import exit_codes
from spillway.runtime.exchange import Outcome
from spillway.runtime.gang.ports import free_port

if TYPE_CHECKING:
    from conftest import Machines

PREEMPTED = exit_codes.PREEMPTED
SECONDS_TO_STOP = 15.0


def test_every_member_knows_who_it_is_and_the_head_speaks_for_all(machines: Machines) -> None:
    machines.start(machines.submission("say_who", 3, arguments={"folder": str(machines.meeting)}))
    assert machines.codes() == [0, 0, 0], machines.logs()
    said = [(machines.meeting / str(rank)).read_text() for rank in range(3)]
    assert said == [f"{rank} of 3 at 127.0.0.1" for rank in range(3)]
    assert machines.result().value == {"rank": 0}


def count(machines: Machines, *, token: int = 1, steps: int = 10**6) -> None:
    arguments = {"folder": str(machines.meeting), "steps": steps}
    machines.start(machines.submission("count_in_step", 3, token=token, arguments=arguments))


@pytest.mark.parametrize("rank", [0, 2])
def test_a_notice_to_one_member_stops_all_at_one_step_and_saves_it(
    machines: Machines, rank: int
) -> None:
    count(machines)
    machines.wait_until_at(5, range(3))
    machines.members[rank].send_signal(signal.SIGTERM)
    assert machines.codes(SECONDS_TO_STOP) == [PREEMPTED] * 3, machines.logs()
    saved = latest(machines.store, "gang")
    assert saved is not None
    step = saved.manifest.step
    assert [machines.at(member) for member in range(3)] == [step] * 3
    assert machines.result().outcome is Outcome.PREEMPTED
    for member in range(3):  # the next lease: all of them go on from there, not only the head
        (machines.meeting / f"at-{member}").unlink()
    count(machines, token=2, steps=step + 3)
    assert machines.codes() == [0, 0, 0], machines.logs()
    begun = [(machines.meeting / f"pid-{member}").read_text().split()[1] for member in range(3)]
    assert begun == [str(step)] * 3
    total = sum(range(1, step + 4))
    assert machines.result(token=2).value == {"total": total, "begun": step}


def test_killing_one_member_stops_the_others_within_seconds(machines: Machines) -> None:
    (machines.meeting / "gone").touch()
    count(machines)
    machines.wait_until_at(3, range(3))
    machines.members[1].kill()
    began = time.monotonic()
    assert machines.codes(SECONDS_TO_STOP) == [PREEMPTED, -signal.SIGKILL, PREEMPTED], (
        machines.logs()
    )
    assert time.monotonic() - began < SECONDS_TO_STOP


def test_killing_the_head_stops_the_others(machines: Machines) -> None:
    (machines.meeting / "gone").touch()
    count(machines)
    machines.wait_until_at(3, range(3))
    machines.members[0].kill()
    assert machines.codes(SECONDS_TO_STOP) == [-signal.SIGKILL, PREEMPTED, PREEMPTED], (
        machines.logs()
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_one_failure_fails_all_and_says_whose_it_was(machines: Machines, rank: int) -> None:
    machines.start(machines.submission("fail_on", 3, arguments={"rank": rank}))
    assert machines.codes(SECONDS_TO_STOP) == [1, 1, 1], machines.logs()
    result = machines.result()
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert f"member {rank} cannot go on" in result.error.message


def test_members_that_do_not_look_up_are_ended_after_the_grace_period(machines: Machines) -> None:
    submission = machines.submission(
        "hang_on", 3, arguments={"rank": 2}, grace_period=timedelta(seconds=1)
    )
    machines.start(submission)
    assert machines.codes(SECONDS_TO_STOP) == [1, 1, 1], machines.logs()
    error = machines.result().error
    assert error is not None
    assert error.message == "member 2 of 3 failed: member 2 cannot go on"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_member_that_hangs_where_none_of_our_threads_can_run_is_killed(
    machines: Machines, rank: int
) -> None:
    submission = machines.submission(
        "hang_holding_the_lock", 2, arguments={"rank": rank}, grace_period=timedelta(seconds=1)
    )
    machines.start(submission, SPILLWAY_GANG_SILENCE_SECONDS="3")
    codes = machines.codes(3 * SECONDS_TO_STOP)
    assert codes.pop(rank) == -signal.SIGKILL, machines.logs()
    assert codes == [PREEMPTED], machines.logs()


def test_what_hangs_after_a_loss_leaves_word_that_it_was_preempted(machines: Machines) -> None:
    ends = machines.folder / "ends"
    ends.mkdir()
    arguments = {"folder": str(machines.meeting), "steps": 10**6}
    submission = machines.submission(
        "count_in_step", 3, arguments=arguments, grace_period=timedelta(seconds=1)
    )
    machines.start(submission, SPILLWAY_GANG_ENDS=str(ends))
    machines.wait_until_at(3, range(3))
    machines.members[2].kill()
    assert machines.codes(SECONDS_TO_STOP)[:2] == [PREEMPTED, PREEMPTED], machines.logs()
    assert [(ends / str(rank)).read_text() for rank in range(2)] == ["75", "75"]


def test_a_gang_that_does_not_come_together_ends_as_preempted(machines: Machines) -> None:
    machines.start(
        machines.submission("say_who", 3, arguments={"folder": str(machines.meeting)}),
        ranks=[0, 2],
        SPILLWAY_GANG_START_SECONDS="2",
    )
    assert machines.codes() == [PREEMPTED] * 2, machines.logs()
    assert "members [1] of 3 did not come" in machines.logs()


def test_a_member_of_another_attempt_is_not_let_in(machines: Machines) -> None:
    submission = machines.submission("say_who", 2, arguments={"folder": str(machines.meeting)})
    port = free_port(following=1)
    machines.start(submission, ranks=[0], port=port, SPILLWAY_GANG_START_SECONDS="4")
    head = machines.members
    machines.start(
        submission,
        ranks=[1],
        port=port,
        SPILLWAY_GANG_SECRET="of another attempt",
        SPILLWAY_GANG_START_SECONDS="2",
    )
    machines.members = [*head, *machines.members]
    assert machines.codes() == [PREEMPTED] * 2, machines.logs()


def test_a_gang_without_members_says_what_to_set(machines: Machines) -> None:
    machines.start(
        machines.submission("say_who", 3, arguments={}),
        ranks=[0],
        SPILLWAY_GANG_NODES="2",
    )
    assert machines.codes() == [exit_codes.BAD_ENTRY_POINT]
    assert "runs on 3 nodes, and SPILLWAY_GANG_RANK says 2" in machines.logs()


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("SPILLWAY_GANG_PORT", "abc", "write a port from 1 to 65534"),
        ("SPILLWAY_GANG_PORT", "65535", "write a port from 1 to 65534"),
        ("SPILLWAY_GANG_START_SECONDS", "soon", "write a number of seconds"),
        ("SPILLWAY_GANG_SILENCE_SECONDS", "nan", "write a number of seconds"),
        ("SPILLWAY_GANG_SILENCE_SECONDS", "0", "write a number of seconds above 0"),
    ],
)
def test_a_variable_that_is_wrong_fails_for_good_with_its_remedy(
    machines: Machines, name: str, value: str, remedy: str
) -> None:
    machines.start(machines.submission("say_who", 2), ranks=[0], **{name: value})
    assert machines.codes() == [exit_codes.BAD_ENTRY_POINT], machines.logs()
    assert f"{name} is '{value}'; {remedy}" in machines.logs()
