"""Answers that are kept: how old they may be, and that nobody waits for the next one."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest

from spillway.errors import LedgerUnavailableError
from spillway.kept import Kept
from spillway.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

MINUTE = timedelta(minutes=1)


class Questions:
    """A clock, a question whose answers are counted, and what was left aside."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.aside: list[Callable[[], object]] = []
        self.kept: Kept[str, int] = Kept(MINUTE, self.aside.append)
        self.answers = count(1)
        self.is_up = True

    def ask(self, _: str) -> int:
        if not self.is_up:
            raise LedgerUnavailableError("down")
        return next(self.answers)

    def get(self, key: str = "pools") -> int:
        return self.kept.get(key, self.clock(), self.ask)

    def lately(self, key: str = "pools") -> int:
        return self.kept.lately(key, self.clock(), self.ask)


@pytest.fixture
def asked() -> Questions:
    return Questions()


def test_an_answer_is_kept_for_its_time(asked: Questions) -> None:
    assert (asked.get(), asked.get(), asked.get("others")) == (1, 1, 2)
    asked.clock.advance(MINUTE)
    assert asked.get() == 1
    asked.clock.advance(1)
    assert asked.get() == 3
    assert asked.aside == []


def test_nobody_waits_for_an_answer_that_is_a_little_too_old(asked: Questions) -> None:
    asked.lately()
    asked.clock.advance(MINUTE + timedelta(seconds=1))
    assert (asked.lately(), asked.lately()) == (1, 1)
    (again,) = asked.aside  # asked once, however many want to know
    again()
    assert asked.lately() == 2


def test_an_answer_twice_too_old_is_waited_for(asked: Questions) -> None:
    asked.lately()
    asked.clock.advance(2 * MINUTE + timedelta(seconds=1))
    assert asked.lately() == 2


def test_a_ledger_that_does_not_answer_aside_is_asked_again(asked: Questions) -> None:
    asked.lately()
    asked.clock.advance(1.5 * MINUTE)
    asked.is_up = False
    asked.lately()
    asked.aside.pop()()
    asked.is_up = True
    assert asked.lately() == 1
    asked.aside.pop()()
    assert asked.lately() == 2


def test_what_nobody_asks_about_any_more_is_forgotten(asked: Questions) -> None:
    for number in range(100):
        asked.lately(f"workload{number}")
        asked.clock.advance(MINUTE)
    assert len(asked.kept) <= 3
