"""Signals that are a notice of preemption: SIGTERM everywhere, and those that Slurm's `--signal` was asked for."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from spillway.errors import SpecError
from spillway.runtime.notice.notice import Notice, NoticeSeen
from spillway.runtime.notice.slurm import seconds_to_end

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType

__all__ = ["Notice", "listen", "notice_signals"]

VARIABLE = "SPILLWAY_NOTICE_SIGNALS"

_EARLY = frozenset({signal.SIGUSR1, signal.SIGUSR2})
"""Nobody sends these by default: who asks Slurm for one asks for it some time before the job's end."""


def listen(
    notice: Notice,
    signals: Iterable[signal.Signals] = (signal.SIGTERM,),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Make each of `signals` a notice instead of the end; only from the main thread."""

    def take(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number)
        left = seconds_to_end(environment or {}) if name in _EARLY else None
        notice.receive(NoticeSeen(source="signal", reason=name.name, seconds_left=left))

    for number in signals:
        signal.signal(number, take)


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
