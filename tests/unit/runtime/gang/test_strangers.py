"""Whoever else finds the head's port keeps no member out, however it behaves."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from threading import Event

import pytest

from patience import PATIENCE_SECONDS
from spillway.runtime import exit_codes
from spillway.runtime.gang.join import join
from spillway.runtime.gang.membership import LOOPBACK, Member
from spillway.runtime.gang.ports import free_port
from spillway.runtime.gang.watch import GangTerms
from spillway.runtime.gang.wire import Line, call_head
from spillway.runtime.notice import Notice

SILENCE_SECONDS = 20.0
TERMS = GangTerms(
    secret=b"of this test",
    grace_seconds=60,
    start_seconds=PATIENCE_SECONDS,
    silence_seconds=SILENCE_SECONDS,
)


def members(count: int) -> list[Member]:
    port = free_port()
    return [Member(rank=r, nodes=count, head_address=LOOPBACK, port=port) for r in range(count)]


def work(member: Member, terms: GangTerms = TERMS) -> int:
    gang = join(member, terms, Notice(), leave=lambda code: pytest.fail(f"left with {code}"))
    return gang.end(exit_codes.SUCCEEDED)


def come_in(member: Member, *, silence_seconds: float) -> Line:
    return call_head(
        member,
        TERMS.secret,
        silence_seconds=silence_seconds,
        limit_seconds=PATIENCE_SECONDS,
        is_given_up=lambda: False,
    )


def knock(member: Member) -> socket.socket:
    while True:
        try:
            return socket.create_connection((member.head_address, member.port))
        except ConnectionRefusedError:  # the head is not there yet
            Event().wait(0.02)


def test_silent_strangers_keep_nobody_waiting() -> None:
    head, second, third = members(3)
    with ThreadPoolExecutor(2) as threads, ExitStack() as strangers:
        end = threads.submit(work, head)
        line = come_in(second, silence_seconds=SILENCE_SECONDS / 4)
        for _ in range(4):
            strangers.enter_context(closing(knock(head)))
        other = threads.submit(work, third)
        heard = None
        while heard != "welcome":  # the head must not be silent until the strangers are
            message = line.receive()
            assert message is not None
            heard = message["type"]
        line.send({"type": "ended", "code": exit_codes.SUCCEEDED, "message": ""})
        assert [end.result(), other.result()] == [exit_codes.SUCCEEDED] * 2
        line.close()


def test_a_stranger_that_never_comes_to_an_end_is_turned_away() -> None:
    terms = replace(TERMS, silence_seconds=1.0)
    head, second = members(2)
    with ThreadPoolExecutor(2) as threads:
        end = threads.submit(work, head, terms)
        with closing(knock(head)) as stranger, suppress(ConnectionError):
            while True:
                stranger.sendall(b"x")
                Event().wait(0.02)
        other = threads.submit(work, second, terms)
        assert [end.result(), other.result()] == [exit_codes.SUCCEEDED] * 2
