"""The life of an attempt: every state is final or has a row, and the drawing is the table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import LedgerError
from spillway.model import JobEvent, LeaseState
from spillway.placement.lifecycle import FINAL_STATES, TRANSITIONS, diagram, is_final, move

DOCS = Path(__file__).parents[3] / "docs"
ORDER = [LeaseState.GRANTED, LeaseState.STARTING, LeaseState.RUNNING, LeaseState.MOVING]

events = st.lists(st.sampled_from(JobEvent), max_size=12)


def walk(sequence: list[JobEvent]) -> list[LeaseState]:
    states = [LeaseState.GRANTED]
    for event in sequence:
        states.append(move(states[-1], event))
    return states


@pytest.mark.parametrize("state", LeaseState)
def test_every_state_is_final_or_has_a_row(state: LeaseState) -> None:
    assert is_final(state) != (state in TRANSITIONS)


@pytest.mark.parametrize("state", TRANSITIONS)
@pytest.mark.parametrize("event", JobEvent)
def test_an_open_state_accepts_every_event(state: LeaseState, event: JobEvent) -> None:
    assert move(state, event) in LeaseState


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
@pytest.mark.parametrize("event", JobEvent)
def test_a_final_state_stays(state: LeaseState, event: JobEvent) -> None:
    assert move(state, event) is state


@given(events)
def test_what_is_known_never_goes_backwards(sequence: list[JobEvent]) -> None:
    ranks = [ORDER.index(s) if s in ORDER else len(ORDER) for s in walk(sequence)]
    assert ranks == sorted(ranks)


@given(events, st.integers(0, 11))
def test_the_same_event_twice_is_the_event_once(sequence: list[JobEvent], at: int) -> None:
    doubled = sequence[: at + 1] + sequence[at : at + 1] + sequence[at + 1 :]
    assert walk(doubled)[-1] is walk(sequence)[-1]


def test_every_state_is_reachable_from_granted() -> None:
    reached = {LeaseState.GRANTED}
    for _ in LeaseState:
        reached |= {s for state in reached for s in TRANSITIONS.get(state, {}).values()}
    assert reached == set(LeaseState)


def test_the_submitter_may_die_between_submitting_and_saying_so() -> None:
    assert move(LeaseState.GRANTED, JobEvent.STARTED) is LeaseState.RUNNING
    assert move(LeaseState.GRANTED, JobEvent.SUCCEEDED) is LeaseState.SUCCEEDED
    assert move(LeaseState.GRANTED, JobEvent.VANISHED) is LeaseState.VANISHED


def test_a_job_that_stops_as_it_was_asked_to_has_moved() -> None:
    asked = move(LeaseState.RUNNING, JobEvent.ASKED_TO_MOVE)
    assert move(asked, JobEvent.STARTED) is asked
    assert move(asked, JobEvent.PREEMPTED) is LeaseState.MOVED
    assert move(asked, JobEvent.SUCCEEDED) is LeaseState.SUCCEEDED  # it was done before it heard


def test_an_event_without_a_move_names_state_and_event() -> None:
    with pytest.raises(LedgerError, match=r"running.*paused"):
        move(LeaseState.RUNNING, cast("JobEvent", "paused"))


def test_the_diagram_in_the_docs_is_drawn_from_the_table() -> None:
    text = (DOCS / "lifecycle.md").read_text(encoding="utf-8")
    drawn = re.search(
        r"<!-- lifecycle: begin -->\n```mermaid\n(.*?)```\n<!-- lifecycle: end -->", text, re.DOTALL
    )
    assert drawn is not None
    assert drawn[1].strip() == diagram(), "run python -m spillway.placement.lifecycle and paste it"


def test_the_diagram_shows_every_state_and_event() -> None:
    drawing = diagram()
    assert all(name in drawing for name in [*LeaseState, *JobEvent])
