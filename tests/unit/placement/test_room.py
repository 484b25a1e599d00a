"""What refusals and launches tell of a pool's room, and when it is worth asking again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from spillway.model import RoomAnswer
from spillway.placement.room import (
    COOL_DOWN,
    HALF_LIFE,
    LONGEST_COOL_DOWN,
    SAME_OUTAGE,
    Room,
    room_of,
)

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

moments = st.integers(0, 6 * 3600).map(lambda seconds: NOON - seconds * SECOND)
answers = st.lists(st.builds(RoomAnswer, at=moments, had_room=st.booleans()), max_size=12)


def refusal(at: datetime) -> RoomAnswer:
    return RoomAnswer(at=at, had_room=False)


def launch(at: datetime) -> RoomAnswer:
    return RoomAnswer(at=at, had_room=True)


def cool_down(seen: list[RoomAnswer], now: datetime = NOON) -> timedelta:
    at = room_of(seen, now).next_try_at
    assert at is not None
    return at - now


def test_a_pool_that_was_never_asked_may_be() -> None:
    assert room_of([], NOON) == Room(chance=1.0, outage=None, next_try_at=None)


def test_tries_come_at_doubling_intervals_up_to_a_bound() -> None:
    seen, at, waits = [refusal(NOON)], NOON, []
    for _ in range(7):
        waits.append(cool_down(seen, at))
        at += waits[-1]
        seen.append(refusal(at))
    seconds = [30, 60, 120, 240, 480, 600, 600]
    assert waits == [second * SECOND for second in seconds]
    assert waits[-1] == LONGEST_COOL_DOWN


def test_many_tasks_that_are_refused_at_once_are_one_answer() -> None:
    assert cool_down([refusal(NOON)] * 50) == COOL_DOWN


def test_a_launch_ends_the_outage() -> None:
    seen = [refusal(NOON - number * MINUTE) for number in range(1, 6)]
    assert room_of(seen, NOON).is_cooling_down(NOON)
    assert room_of([*seen, launch(NOON)], NOON) == Room()


def test_a_providers_word_counts_more_than_refusals_before_it_unless_they_go_on() -> None:
    lost_together = [refusal(NOON - 2 * SECOND), refusal(NOON - SECOND), refusal(NOON - SECOND)]
    assert room_of(lost_together, NOON, NOON) == Room()
    for old_word in (None, NOON - 2 * SECOND):
        assert room_of(lost_together, NOON, old_word) == room_of(lost_together, NOON)
    refuses_on = [refusal(NOON - MINUTE), refusal(NOON - SECOND)]
    assert room_of(refuses_on, NOON, NOON) == room_of(refuses_on, NOON) != Room()


def test_capacity_taken_back_as_soon_as_it_was_given_is_an_outage() -> None:
    assert cool_down([launch(NOON), refusal(NOON)]) == COOL_DOWN


def test_refusals_far_apart_are_outages_of_their_own() -> None:
    before = NOON - SAME_OUTAGE - SECOND
    outage = room_of([refusal(before), refusal(NOON)], NOON).outage
    assert outage is not None
    assert (outage.first, outage.refusals) == (NOON, 1)


def test_long_outages_before_are_learned_from_and_forgotten() -> None:
    begun = NOON - HOUR
    long = [refusal(begun + number * 10 * MINUTE) for number in range(3)]
    long.append(launch(begun + 30 * MINUTE))
    learned = cool_down([*long, refusal(NOON)])
    later = NOON + 3 * HALF_LIFE
    faded = cool_down([*long, refusal(later)], later)
    assert COOL_DOWN < faded < learned < LONGEST_COOL_DOWN


@given(seen=answers)
def test_waits_are_neither_shorter_than_the_first_nor_longer_than_the_last(
    seen: list[RoomAnswer],
) -> None:
    room = room_of(seen, NOON)
    if room.outage is None:
        assert room == Room()
        return
    assert room.next_try_at is not None
    waited = room.next_try_at - room.outage.last
    assert COOL_DOWN - SECOND <= waited <= LONGEST_COOL_DOWN


@given(seen=answers, order=st.randoms(use_true_random=False))
def test_the_order_of_answers_is_irrelevant(seen: list[RoomAnswer], order: object) -> None:
    shuffled = list(seen)
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    assert room_of(shuffled, NOON) == room_of(seen, NOON)


@given(seen=answers, waits=st.lists(st.integers(0, 7200), min_size=2, max_size=2))
def test_the_chance_grows_as_the_refusal_ages(seen: list[RoomAnswer], waits: list[int]) -> None:
    sooner, later = (room_of(seen, NOON + wait * SECOND) for wait in sorted(waits))
    assert 0.0 <= sooner.chance <= later.chance + 1e-12 <= 1.0 + 1e-12


@given(seen=answers)
def test_one_more_refusal_never_brings_the_next_try_forward(seen: list[RoomAnswer]) -> None:
    before, after = room_of(seen, NOON), room_of([*seen, refusal(NOON)], NOON)
    assert after.next_try_at is not None
    assert before.next_try_at is None or after.next_try_at >= before.next_try_at
    assert after.chance == 0.0


@given(outage=st.integers(0, 500))
def test_a_pool_is_tried_when_the_chance_is_a_half(outage: int) -> None:
    seen = [refusal(NOON - outage * SECOND), refusal(NOON)]
    at = room_of(seen, NOON).next_try_at
    assert at is not None
    assert abs(room_of(seen, at).chance - 0.5) < 1e-6


def test_the_reason_says_how_often_and_until_when() -> None:
    seen = [refusal(NOON - 10 * MINUTE), refusal(NOON - 8 * MINUTE), refusal(NOON - 4 * MINUTE)]
    assert room_of(seen, NOON).reason(NOON) == (
        "refused or took back capacity 3 times in 10 min, next try in 2 min (chance of room now 38%)"
    )
    once = room_of([refusal(NOON - 20 * SECOND)], NOON)
    assert once.reason(NOON).startswith("refused or took back capacity 20 s ago, next try in 10 s")
    assert once.reason(NOON + HOUR) == ""
