"""The life of an attempt as one table: which event moves a lease from which state to which.

Events may come late, twice, or with their predecessors missing: the process that submitted may have died before it
wrote so, and whoever looks next sees a job that already runs, or is already over. So every open state accepts every
event, and what is known never goes backwards: a late `submitted` does not make a running lease start again. An end
is an end: nothing moves a final state.
"""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.errors import LedgerError
from spillway.model import JobEvent, LeaseState

if TYPE_CHECKING:
    from collections.abc import Mapping

# `vanished` from `granted` is a provider that never heard of the job: the submitter died before it asked.
_ENDS: Final = {
    JobEvent.SUCCEEDED: LeaseState.SUCCEEDED,
    JobEvent.FAILED: LeaseState.FAILED,
    JobEvent.PREEMPTED: LeaseState.PREEMPTED,
    JobEvent.VANISHED: LeaseState.VANISHED,
    JobEvent.CANCELLED: LeaseState.CANCELLED,
}

TRANSITIONS: Final[Mapping[LeaseState, Mapping[JobEvent, LeaseState]]] = MappingProxyType(
    {
        LeaseState.GRANTED: {
            JobEvent.SUBMITTED: LeaseState.STARTING,
            JobEvent.STARTED: LeaseState.RUNNING,
            JobEvent.ASKED_TO_MOVE: LeaseState.MOVING,
            **_ENDS,
        },
        LeaseState.STARTING: {
            JobEvent.SUBMITTED: LeaseState.STARTING,
            JobEvent.STARTED: LeaseState.RUNNING,
            JobEvent.ASKED_TO_MOVE: LeaseState.MOVING,
            **_ENDS,
        },
        LeaseState.RUNNING: {
            JobEvent.SUBMITTED: LeaseState.RUNNING,
            JobEvent.STARTED: LeaseState.RUNNING,
            JobEvent.ASKED_TO_MOVE: LeaseState.MOVING,
            **_ENDS,
        },
        # The job says that it stopped early in the same way whoever asked it to; here it was us.
        LeaseState.MOVING: {
            JobEvent.SUBMITTED: LeaseState.MOVING,
            JobEvent.STARTED: LeaseState.MOVING,
            JobEvent.ASKED_TO_MOVE: LeaseState.MOVING,
            **_ENDS,
            JobEvent.PREEMPTED: LeaseState.MOVED,
        },
    }
)

FINAL_STATES: Final = frozenset({*_ENDS.values(), LeaseState.MOVED})


def is_final(state: LeaseState) -> bool:
    """Whether the attempt is over: its capacity is given back and no event changes it."""
    return state in FINAL_STATES


def move(state: LeaseState, event: JobEvent) -> LeaseState:
    """Return the state after `event`; a final state stays as it is.

    Raises:
        LedgerError: The table has no move for `event`, which a newer version may have written.
    """
    if is_final(state):
        return state
    try:
        return TRANSITIONS[state][event]
    except KeyError as error:
        raise LedgerError(
            f"a lease that is {state} cannot take the event {event}: "
            f"add the move to spillway.placement.lifecycle, or upgrade the process that reads it"
        ) from error


def diagram() -> str:
    """Return the table as a Mermaid state diagram; an end that every open state shares is drawn once."""
    shared = _shared_ends()
    lines = ["stateDiagram-v2", "    [*] --> open", "    state open {"]
    lines.append(f"        [*] --> {LeaseState.GRANTED}")
    for state, row in TRANSITIONS.items():
        own = {event: target for event, target in row.items() if (event, target) not in shared}
        for target in dict.fromkeys(own.values()):
            events = ", ".join(event for event in own if own[event] is target)
            lines.append(f"        {state} --> {target}: {events}")
    lines.append("    }")
    lines += [
        f"    open --> {end}: {event}" for event, end in _ENDS.items() if (event, end) in shared
    ]
    lines += [f"    {end} --> [*]" for end in (*_ENDS.values(), LeaseState.MOVED)]
    return "\n".join(lines)


def _shared_ends() -> set[tuple[JobEvent, LeaseState]]:
    return {
        (event, end)
        for event, end in _ENDS.items()
        if all(row.get(event) is end for row in TRANSITIONS.values())
    }


if __name__ == "__main__":
    sys.stdout.write(diagram() + "\n")
