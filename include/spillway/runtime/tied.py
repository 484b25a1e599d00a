"""Run a command that does not outlive whoever started it, though it is in a session of its own.

    python tied.py PARENT COMMAND [ARGUMENT ...]

Where the system can (Linux), the command is sent SIGTERM when the parent ends, however that is killed; elsewhere it is run
as it is. Source: PR_SET_PDEATHSIG in prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG: Final = 1


def tied(command: Sequence[str]) -> list[str]:
    """Return `command` so that it ends with this process; to be started by its main thread."""
    return [
        sys.executable,
        "-I",
        __file__,
        str(os.getpid()),
        *command,
    ]  # by its path: it imports next to nothing


def main(parent: int, command: Sequence[str]) -> None:
    """Become `command`, unless `parent` has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:
        os.execv(command[0], list(command))  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
