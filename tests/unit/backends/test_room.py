"""What is known of a pool's room: of what its backend counts, and of what its provider says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from spillway.backends.room import FreeSlots, Kept, Room, SlotCount
from spillway.errors import TransientError

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def count(room: Room, *, taken: int) -> FreeSlots:
    return SlotCount(9, lambda: taken, lambda: room).free()


@pytest.mark.parametrize(
    ("instances", "is_limit", "free"),
    [
        (4, False, FreeSlots(count=4, said_at=NOON)),
        (20, False, FreeSlots(count=7, said_at=NOON)),
        (-1, False, FreeSlots(count=0, said_at=NOON)),
        (None, False, FreeSlots(count=7)),
        (4, True, FreeSlots(count=4)),
        (0, True, FreeSlots(count=0, said_at=NOON)),
    ],
)
def test_a_word_on_room_is_dated_and_a_limit_is_none_until_it_is_used_up(
    instances: int | None, *, is_limit: bool, free: FreeSlots
) -> None:
    room = Room(instances=instances, asked_at=NOON, is_limit=is_limit)
    assert count(room, taken=2) == free


def test_a_provider_is_not_asked_while_every_slot_is_taken() -> None:
    assert SlotCount(9, lambda: 11, unreachable).free() == FreeSlots(count=0)


def unreachable() -> Room:
    raise TransientError("the provider does not answer", backend="fake")


@pytest.mark.parametrize(("seconds", "asked"), [(60.0, 1), (-1.0, 3)])
def test_an_answer_is_kept_while_it_is_young(seconds: float, asked: int) -> None:
    numbers = iter(range(9))
    kept = Kept(lambda: next(numbers), seconds)
    assert [kept.get() for _ in range(3)][-1] == asked - 1


def test_an_answer_that_is_forgotten_is_asked_for_anew_and_a_failure_is_not_kept() -> None:
    answers = ["second", "first"]
    kept = Kept(answers.pop, 60.0)
    assert [kept.get(), kept.get()] == ["first", "first"]
    kept.forget()
    assert [kept.get(), kept.get()] == ["second", "second"]
    kept.forget()
    for _ in range(2):
        with pytest.raises(IndexError):
            kept.get()
