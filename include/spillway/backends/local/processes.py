"""Processes of this machine, by an identity that is never given to another, and the stopping of all that a job started."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "SPILLWAY_JOB"
"""Environment variable that every process of a job inherits; its value is the job's folder."""


RELEASE_GRACE = timedelta(seconds=2)
"""What a job gets to end by itself once its capacity was given back: nobody waits for it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process: its number, which is used again, and when it was started, which is not.

    Attributes:
        started_at: Seconds since the epoch, as the system gives them.
    """

    pid: int
    started_at: float


def identify(pid: int) -> ProcessIdentity:
    """Return the identity of a process that is there."""
    return ProcessIdentity(pid=pid, started_at=psutil.Process(pid).create_time())


def is_alive(identity: ProcessIdentity) -> bool:
    """Return whether this very process still runs; one that only waits to be collected does not."""
    try:
        process = psutil.Process(identity.pid)
        return (
            # The system derives it from its boot time, which a corrected clock shifts by a little.
            abs(process.create_time() - identity.started_at) < 1.0
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return False


def marked(mark: str) -> Iterator[psutil.Process]:
    """Yield every live process that carries `mark`, wherever in the process tree it went."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def stop(mark: str, *, limit: timedelta) -> bool:
    """Ask every process that carries `mark` to end, then make it; return whether none is left.

    Blocks until there is none, and for `RELEASE_GRACE` and `limit` together at most.
    """
    for process in marked(mark):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    if _wait_until_gone(mark, RELEASE_GRACE):
        return True
    return kill(mark, limit=limit)


def kill(mark: str, *, limit: timedelta) -> bool:
    """Make every process that carries `mark` end, those that they start meanwhile too; return whether none is left."""
    deadline = time.monotonic() + limit.total_seconds()
    while processes := list(marked(mark)):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)  # a look for what was started while we killed; until the deadline
    return True


def _wait_until_gone(mark: str, limit: timedelta) -> bool:
    """Wait until no process carries `mark`, for `limit` at most; return whether that came true."""
    deadline = time.monotonic() + limit.total_seconds()
    while any(True for _ in marked(mark)):
        if time.monotonic() > deadline:
            return False
        time.sleep(
            0.05
        )  # processes of others cannot be waited for, only looked for; until the deadline
    return True


def signal_group(pid: int, signum: int) -> None:
    """Signal the process group that `pid`, a child not collected yet, leads."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signum)
