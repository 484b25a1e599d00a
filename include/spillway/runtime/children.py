"""Processes that the job forks, such as workers of a data loader: a notice is for the job and not for them.

Platforms signal every process of a job, Slurm all of a step and a shell all of a process group. A worker that died of it
would end the training before it has saved. So processes of `multiprocessing` live on through signals that are a notice, and
end as ever when their parent terminates them. What they start in turn by `exec` does not hear SIGTERM either, SIGKILL it
does. Processes that are spawned and not forked are out of our reach.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from functools import cache
from multiprocessing.util import register_after_fork
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    Handler = Callable[[int, FrameType | None], None]

_handlers: dict[signal.Signals, Handler] = {}
"""Ours, by their signals; what the job puts in their place is the job's."""

_masks: list[set[int]] = []
"""What the thread that forks had blocked before."""


def spare_children(signals: Iterable[signal.Signals], handler: Handler) -> None:
    """Keep `signals`, which `handler` takes in this process, from those that are forked from now on."""
    _handlers.update(dict.fromkeys(signals, handler))
    _register()


@cache
def _register() -> None:
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_forget)
    register_after_fork(_live_on, _live_on)


def _hold() -> None:
    """Let no signal come before the child has forgotten whom the handlers speak for."""
    _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _handlers))


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _forget() -> None:
    with suppress(
        ValueError
    ):  # Python allows it to the main thread only, which a forked one becomes
        signal.set_wakeup_fd(-1)
        for number, handler in list(_handlers.items()):
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.SIG_DFL)
            else:
                del _handlers[number]
    _release()


def _live_on(_: object) -> None:
    """Let a process of `multiprocessing` hear of its end from its parent alone."""
    if sys.platform != "linux" or signal.SIGTERM not in _handlers:
        return
    for number in _handlers.keys() - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    # Blocked and not ignored, because torch's workers take it in a handler of their own, which ends them.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=_hear_parent, name="spillway-parent", daemon=True).start()


def _hear_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)
