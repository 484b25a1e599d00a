"""Whose turn it is where a look asks about some only."""

from __future__ import annotations

from spillway.backends.turns import Turns


def test_everyone_has_a_turn_before_anyone_has_two() -> None:
    turns = Turns()
    assert [turns.take("cabd", 3) for _ in range(3)] == [
        ["a", "b", "c"],
        ["d", "a", "b"],
        ["c", "a", "b"],
    ]


def test_looks_at_different_names_do_not_take_turns_from_each_other() -> None:
    turns = Turns()
    looks = [turns.take(names, 1) for names in ("ab", "c", "ab", "c")]
    assert looks == [["a"], ["c"], ["b"], ["c"]]


def test_one_that_is_new_comes_before_those_that_were_asked() -> None:
    turns = Turns()
    turns.take("ab", 2)
    turns.forget("b")
    assert turns.take("abz", 2) == ["b", "z"]
