"""Entry points that the tests of gangs run, on every member."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spillway.runtime import Session


def say_who(session: Session, folder: str) -> dict[str, Any]:
    """Leave a file that says which member this is, and return it."""
    gang = session.gang
    who = f"{gang.rank} of {gang.nodes} at {gang.head_address}"
    (Path(folder) / str(gang.rank)).write_text(who)
    return {"rank": gang.rank}


def count_in_step(session: Session, folder: str, steps: int, start_at: int = 0) -> dict[str, Any]:
    """Count, no member more than a step ahead of another, as a collective operation in each step would have it.

    Files stand in for the collective operation, so that a member which is gone makes nothing break: it only never comes.
    """
    restored = session.restore()
    begun = restored.step if restored else 0
    total = restored.state["total"] if restored else 0
    mine = Path(folder) / f"pid-{session.gang.rank}"
    mine.write_text(f"{os.getpid()} {begun}")
    for step in range(begun + 1, steps + 1):
        _meet(session, Path(folder), step)
        total += step
        session.progress(step, steps)
        if session.should_checkpoint(step):
            session.checkpoint(step, {"total": total})
    return {"total": total, "begun": begun}


def _meet(session: Session, folder: Path, step: int) -> None:
    """Wait until every member has come to `step`; a member that is stopping for another reason than a notice leaves."""
    (folder / f"at-{session.gang.rank}").write_text(str(step))
    while any(_at(folder, rank) < step for rank in range(session.gang.nodes)):
        if (folder / "gone").exists() and session.preempted:
            raise ConnectionResetError("a peer is gone")
        time.sleep(0.005)


def _at(folder: Path, rank: int) -> int:
    try:
        return int((folder / f"at-{rank}").read_text() or 0)
    except FileNotFoundError:
        return 0


def fail_on(session: Session, rank: int) -> None:
    """Fail on one member; the others wait, and would for ever."""
    if session.gang.rank == rank:
        raise ValueError(f"member {rank} cannot go on")
    while not session.preempted:
        time.sleep(0.02)


def hang_on(session: Session, rank: int) -> None:
    """Fail on one member; the others never look up."""
    if session.gang.rank == rank:
        raise ValueError(f"member {rank} cannot go on")
    time.sleep(600)


def hang_holding_the_lock(session: Session, rank: int) -> None:
    """Hang on one member in native code that lets no thread of Python run; the others wait to be told."""
    if session.gang.rank == rank:
        ctypes.PyDLL(None).sleep(600)
    while not session.preempted:
        time.sleep(0.02)
