"""A timer of the kernel's that kills this process unless it is put off: for code that lets no thread of ours run.

Native code that hangs while it holds the interpreter's lock stops all of Python, whatever watches the time included. The
kernel needs none of it. The timer is no `setitimer`, of which there is one and which is the job's; children that are forked
do not inherit it. Source: timer_create(2), https://man7.org/linux/man-pages/man2/timer_create.2.html
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_SIGEV_SIGNAL: Final = 0


class _Event(ctypes.Structure):
    """`struct sigevent`, of 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_byte * 48),
    )


class _Times(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class KernelTimer:
    """Kills this process when `put_off` was not called again for `seconds`, for None never; it ends with the process.

    Where the system has no such timers, that is in the log and nothing is killed.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._set: Callable[[float], object] | None = None
        try:
            self._set = None if seconds is None else _make()
        except (OSError, AttributeError) as error:
            log.info(
                "native code that hangs with the interpreter's lock cannot be ended: %s", error
            )

    def put_off(self) -> None:
        """Let the time begin, or begin anew."""
        if self._set is not None and self._seconds is not None:
            self._set(self._seconds)

    def stop(self) -> None:
        """Let no time run."""
        if self._set is not None:
            self._set(0.0)


def _make() -> Callable[[float], object]:
    """Return what sets a timer of its own to a number of seconds, 0 to stop it."""
    if sys.platform != "linux":
        raise OSError(f"{sys.platform} has no such timers")
    libc: Any = ctypes.CDLL(None, use_errno=True)
    event = _Event(signal=signal.SIGKILL, notify=_SIGEV_SIGNAL)
    timer = ctypes.c_void_p()
    if libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    change = libc.timer_settime

    def set_to(seconds: float) -> None:
        whole = int(seconds)
        times = _Times(0, 0, whole, int((seconds - whole) * 1e9))
        change(timer, 0, ctypes.byref(times), None)

    return set_to
