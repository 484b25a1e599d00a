"""Gangs whose work goes on without a member that only lends its machine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from socket import create_server
from threading import Barrier, Event
from typing import Any

import pytest

from spillway.errors import GangError
from spillway.runtime import exit_codes
from spillway.runtime.gang.join import join
from spillway.runtime.gang.membership import LOOPBACK, Member
from spillway.runtime.gang.watch import Gang, GangTerms
from spillway.runtime.notice import Notice, NoticeSeen

TERMS = GangTerms(
    secret=b"of this test", grace_seconds=60, start_seconds=30, silence_seconds=5, can_shrink=True
)
SOON = NoticeSeen(source="test", reason="taken back", seconds_left=1)
PATIENCE_SECONDS = 30.0
NODES = 3

Part = Callable[[Gang, Notice], Any]


def never(code: int) -> None:
    pytest.fail(f"the process would have been ended with {code}")


def play(head: Part, *workers: Part, terms: GangTerms = TERMS) -> list[Any]:
    """Have each member play its part, and return what each says."""
    with closing(create_server((LOOPBACK, 0))) as server:
        port: int = server.getsockname()[1]
    everybody = len(workers) + 1

    def one(rank: int, part: Part) -> Any:
        notice = Notice()
        member = Member(rank=rank, nodes=everybody, head_address=LOOPBACK, port=port)
        return part(join(member, terms, notice, leave=never), notice)

    with ThreadPoolExecutor(everybody) as threads:
        parts = [threads.submit(one, *part) for part in enumerate((head, *workers))]
        return [part.result(PATIENCE_SECONDS) for part in parts]


def lend(gang: Gang, _notice: Notice) -> int:
    gang.say_ready()
    gang.wait_for_head()
    return gang.end(exit_codes.SUCCEEDED)


def vanish(gang: Gang, _notice: Notice, *, when: Event | None = None) -> None:
    gang.say_ready()
    if when is not None:
        assert when.wait(PATIENCE_SECONDS)
    gang._finish()
    gang._line.close()  # type: ignore[attr-defined]  # as the loss of its machine would


def test_a_member_that_is_lost_does_not_stop_the_others() -> None:
    gone = Event()

    def work(gang: Gang, _notice: Notice) -> tuple[bool, int]:
        gang.say_ready()
        assert gone.wait(PATIENCE_SECONDS)
        Event().wait(0.3)  # what is false must stay so
        return gang.notice.received, gang.end(exit_codes.SUCCEEDED)

    def leave(gang: Gang, notice: Notice) -> None:
        vanish(gang, notice)
        gone.set()

    assert play(work, leave, lend) == [(False, 0), None, 0]


def test_a_member_whose_machine_is_taken_back_leaves_alone_and_in_time() -> None:
    left = Barrier(2)

    def work(gang: Gang, _notice: Notice) -> tuple[bool, int]:
        gang.say_ready()
        left.wait(PATIENCE_SECONDS)
        return gang.notice.received, gang.end(exit_codes.SUCCEEDED)

    def told(gang: Gang, notice: Notice) -> int:
        gang.say_ready()
        notice.receive(SOON)
        gang.wait_for_head()
        code = gang.end(exit_codes.SUCCEEDED)
        left.wait(PATIENCE_SECONDS)
        return code

    assert play(work, told, lend) == [(False, 0), 0, 0]


def test_a_notice_to_the_head_still_stops_all() -> None:
    def work(gang: Gang, notice: Notice) -> int:
        gang.say_ready()
        notice.receive(replace(SOON, seconds_left=60))
        told = Event()
        gang.notice.wake_by(told.set)
        assert told.wait(PATIENCE_SECONDS)
        return gang.end(exit_codes.PREEMPTED)

    assert play(work, lend, lend) == [exit_codes.PREEMPTED] * NODES


def test_a_head_that_is_lost_is_a_preemption_for_all() -> None:
    def disappear(gang: Gang, _notice: Notice) -> None:
        gang.say_ready()
        gang._close()  # type: ignore[attr-defined]

    assert play(disappear, lend, lend) == [None, exit_codes.PREEMPTED, exit_codes.PREEMPTED]


def test_a_member_that_is_lost_before_all_are_ready_stops_the_others() -> None:
    def work(gang: Gang, _notice: Notice) -> int:
        with pytest.raises(GangError, match="before all members were ready"):
            gang.say_ready()
        return gang.end(exit_codes.PREEMPTED)

    def die_early(gang: Gang, _notice: Notice) -> None:
        gang._finish()
        gang._line.close()  # type: ignore[attr-defined]

    assert play(work, die_early, lend) == [exit_codes.PREEMPTED, None, exit_codes.PREEMPTED]


def test_gangs_that_work_in_step_stop_with_a_lost_member() -> None:
    all_ready = Event()

    def work(gang: Gang, _notice: Notice) -> int:
        gang.say_ready()
        told = Event()
        gang.notice.wake_by(told.set)
        all_ready.set()
        assert told.wait(PATIENCE_SECONDS)
        return gang.end(exit_codes.PREEMPTED)

    def vanish_late(gang: Gang, notice: Notice) -> None:
        vanish(gang, notice, when=all_ready)

    assert play(work, vanish_late, lend, terms=replace(TERMS, can_shrink=False)) == [
        exit_codes.PREEMPTED,
        None,
        exit_codes.PREEMPTED,
    ]
