"""Signals that are a notice of preemption: SIGTERM everywhere, and those that Slurm's `--signal` was asked for."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

from spillway.errors import SpecError
from spillway.runtime.children import spare_children
from spillway.runtime.notice.notice import Notice, NoticeSeen
from spillway.runtime.notice.slurm import seconds_to_end

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType

__all__ = ["Notice", "heard_at_once", "listen", "notice_signals"]

VARIABLE = "SPILLWAY_NOTICE_SIGNALS"

_EARLY = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""Nobody sends these by default: who asks Slurm for one asks for it some time before the job's end."""


def listen(
    notice: Notice,
    signals: Iterable[signal.Signals] = (signal.SIGTERM,),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Make each of `signals` a notice to this process instead of its end; only from the main thread."""

    def take(number: int, _frame: FrameType | None) -> None:
        notice.receive(_meaning(number, environment or {}))

    taken = tuple(signals)
    for number in taken:
        signal.signal(number, take)
    spare_children(taken, take)


@contextmanager
def heard_at_once(notice: Notice, environment: Mapping[str, str]) -> Iterator[None]:
    """Take signals in a thread too, until the block is left; only from the main thread, after `listen`.

    Python runs a handler once the main thread is back in Python. One that is in C code for minutes, such as a collective
    operation that waits for others, would learn of a notice when all is over.
    """
    reader, writer = socket.socketpair()
    writer.settimeout(0)  # a full buffer must not hold up the signal
    ours = notice_signals(environment)

    def take_all() -> None:
        while numbers := reader.recv(64):
            for number in set(numbers).intersection(ours):
                notice.receive(_meaning(number, environment))

    thread = Thread(target=take_all, name="spillway-signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        thread.join()
        reader.close()


def _meaning(number: int, environment: Mapping[str, str]) -> NoticeSeen:
    name = signal.Signals(number)
    left = seconds_to_end(environment) if name in _EARLY else None
    return NoticeSeen(source="signal", reason=name.name, seconds_left=left)


def notice_signals(environment: Mapping[str, str]) -> tuple[signal.Signals, ...]:
    """Return which signals are a notice: SIGTERM, in a Slurm job SIGUSR1 too, or those of `SPILLWAY_NOTICE_SIGNALS`.

    Raises:
        SpecError: The variable names something else.
    """
    asked = environment.get(VARIABLE)
    if asked is None:
        early = (signal.SIGUSR1,) if "SLURM_JOB_ID" in environment else ()
        return (signal.SIGTERM, *early)
    return tuple(_named(name.strip()) for name in asked.split(",") if name.strip())


def _named(name: str) -> signal.Signals:
    try:
        number = signal.Signals["SIG" + name.upper().removeprefix("SIG")]
    except KeyError:
        number = signal.SIGKILL
    if number in (signal.SIGKILL, signal.SIGSTOP):
        raise SpecError(
            f"{VARIABLE} has {name!r}, which is no signal that a process can take; write for example TERM,USR1"
        )
    return number
