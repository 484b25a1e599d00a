"""A process that leads a group of its own, as a container's first process does: signals reach them all, and they end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class ProcessGroup:
    """A command and all that it starts in its group. Safe to use from several threads.

    A process keeps its number, and with it the group's, until it is collected. So it is collected in one place, under a lock
    that signals take too: none goes to a group that is over, or to a stranger that was given the number since.
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  # the tests' own commands
            list(command), start_new_session=True, **options
        )
        self._collecting = threading.Lock()

    def signal(self, number: signal.Signals) -> None:
        """Signal the command and its children; nothing happens once the command has ended."""
        with self._collecting:
            if self.process.returncode is None:
                os.killpg(self.process.pid, number)

    def exit_code(self) -> int | None:
        """Return the command's exit code as containers have it, 128 and the number for a signal; None while it runs."""
        return self._collect(os.WNOHANG)

    def wait(self) -> int:
        """Block until the command has ended, and return its exit code as containers have it."""
        code = self._collect(0)
        assert code is not None
        return code

    def _collect(self, options: int) -> int | None:
        if self.process.returncode is None and not self._has_ended(options):
            return None
        with self._collecting:
            if self.process.returncode is None:
                os.killpg(self.process.pid, signal.SIGKILL)  # children of a command that has ended
            code = self.process.wait()
        return 128 - code if code < 0 else code

    def _has_ended(self, options: int) -> bool:
        """Return whether the command has ended, which leaves it to be collected."""
        try:
            ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | options)
        except ChildProcessError:  # another thread has collected it
            return True
        return ended is not None
