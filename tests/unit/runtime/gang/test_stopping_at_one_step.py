"""Members that work in step all stop at the same boundary, whoever is told and whenever."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event

import pytest

from spillway.errors import GangError
from spillway.runtime import exit_codes
from spillway.runtime.gang.join import join
from spillway.runtime.gang.membership import LOOPBACK, Member
from spillway.runtime.gang.ports import free_port
from spillway.runtime.gang.watch import Gang, GangTerms
from spillway.runtime.gang.wire import Line, call_head
from spillway.runtime.notice import Notice, NoticeSeen

TERMS = GangTerms(secret=b"of this test", grace_seconds=60, start_seconds=30)
PATIENCE_SECONDS = 30.0


def members(count: int) -> list[Member]:
    port = free_port()
    return [Member(rank=r, nodes=count, head_address=LOOPBACK, port=port) for r in range(count)]


def never(code: int) -> None:
    pytest.fail(f"the process would have been ended with {code}")


@pytest.mark.parametrize("seed", range(8))
def test_all_stop_at_one_boundary_and_none_waits_for_ever(seed: int) -> None:
    rng = random.Random(seed)
    gang = members(rng.randint(2, 4))
    told = {rng.randrange(len(gang)): rng.randint(1, 40) for _ in range(rng.randint(1, 2))}
    in_step = Barrier(len(gang))

    def work(member: Member) -> tuple[int, int]:
        notice = Notice()
        mine = join(member, TERMS, notice, leave=never)
        steps = 0
        while True:
            in_step.wait(PATIENCE_SECONDS)  # the collective operation
            steps += 1
            if told.get(member.rank) == steps:
                notice.receive(NoticeSeen(source="test", reason="taken back", seconds_left=60))
            mine.boundary()
            if mine.notice.received:
                return steps, mine.end(exit_codes.PREEMPTED)
            Event().wait(0.002)

    with ThreadPoolExecutor(len(gang)) as threads:
        ended = list(threads.map(work, gang))
    assert len({steps for steps, _ in ended}) == 1
    assert {code for _, code in ended} == {exit_codes.PREEMPTED}


def test_work_that_knows_no_boundaries_is_told_at_once() -> None:
    def work(member: Member) -> bool:
        notice = Notice()
        mine = join(member, TERMS, notice, leave=never)
        if member.rank == 1:
            notice.receive()
        woken = Event()
        mine.notice.wake_by(woken.set)
        seen = woken.wait(PATIENCE_SECONDS)
        mine.end(exit_codes.PREEMPTED)
        return seen

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, members(2))) == [True, True]


def test_the_others_learn_where_the_head_goes_on_from() -> None:
    def work(member: Member) -> str | None:
        mine = join(member, TERMS, Notice(), leave=never)
        if member.is_head:
            mine.tell_restored("000000000001-000000000007")
        found = mine.wait_restored()
        mine.end(exit_codes.SUCCEEDED)
        return found

    with ThreadPoolExecutor(3) as threads:
        assert set(threads.map(work, members(3))) == {"000000000001-000000000007"}


def test_members_that_wait_for_a_head_that_failed_are_told() -> None:
    def work(member: Member) -> int:
        mine: Gang = join(member, TERMS, Notice(), leave=never)
        if member.is_head:
            return mine.end(exit_codes.FAILED, "no such data")
        with pytest.raises(GangError, match="stopped before"):
            mine.wait_restored()
        return mine.end(exit_codes.PREEMPTED)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(work, members(2))) == [exit_codes.FAILED] * 2


def test_a_member_hears_why_all_stop_before_it_hears_that_the_head_has_ended() -> None:
    """The other way round it would leave as one that is preempted, which is then the end of all."""
    first, second = members(2)

    def fail() -> int:
        return join(first, TERMS, Notice(), leave=never).end(exit_codes.FAILED, "no such data")

    def listen(line: Line) -> list[str]:
        heard = []
        while not heard or heard[-1] != "head_ended":
            message = line.receive()
            assert message is not None
            heard.append(message["type"])
        line.send({"type": "ended", "code": exit_codes.PREEMPTED, "message": ""})
        return heard

    with ThreadPoolExecutor(1) as threads:
        head = threads.submit(fail)
        line = call_head(
            second,
            TERMS.secret,
            silence_seconds=PATIENCE_SECONDS,
            limit_seconds=PATIENCE_SECONDS,
            is_given_up=lambda: False,
        )
        with closing(line):
            heard = [each for each in listen(line) if each != "ping"]
        assert head.result() == exit_codes.FAILED
    assert heard == ["welcome", "stop", "head_ended"]
