"""Containers of a make-believe AWS: their commands run as processes of this machine, and their output goes to a log stream."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from spillway.testing.process_groups import ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STOP_SECONDS: Final = 3.0
"""Between SIGTERM and SIGKILL; the real services give 30 s and 120 s."""

_CHUNK: Final = 1 << 16


class Container:
    """One command, running until it ends or is stopped; `ended` hears of its exit code, as Docker counts it."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        folder: str,
        printed: Callable[[bytes], None],
        ended: Callable[[int], None],
    ) -> None:
        inherited = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
        self._group = ProcessGroup(
            command,
            env={**inherited, "AWS_EC2_METADATA_DISABLED": "true", **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._printed = printed
        self._ended = ended
        self._over = threading.Event()
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def stop(self, grace_seconds: float = STOP_SECONDS) -> None:
        """Send SIGTERM now and SIGKILL after the grace period, without waiting for either."""
        threading.Thread(target=self._stop, args=(grace_seconds,), daemon=True).start()

    def kill(self) -> None:
        """Send SIGKILL to everything that the command started in its group."""
        self._group.signal(signal.SIGKILL)

    def join(self) -> None:
        """Wait until `ended` was told."""
        self._waiter.join()

    def _stop(self, grace_seconds: float) -> None:
        self._group.signal(signal.SIGTERM)
        if not self._over.wait(grace_seconds):
            self.kill()

    def _wait(self) -> None:
        reader = threading.Thread(target=self._copy_output, daemon=True)
        reader.start()
        code = self._group.wait()
        self._over.set()
        reader.join()
        self._ended(code)

    def _copy_output(self) -> None:
        stdout = self._group.process.stdout
        assert stdout is not None
        rest = b""
        while data := os.read(stdout.fileno(), _CHUNK):
            lines, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                self._printed(lines)
        if rest:
            self._printed(rest)
        stdout.close()


class LogWriter:
    """Writes output into one stream of CloudWatch Logs."""

    def __init__(self, logs: Any, group: str, stream: str) -> None:
        self._logs = logs
        self._where = {"logGroupName": group, "logStreamName": stream}
        for make, names in (
            (logs.create_log_group, ("logGroupName",)),
            (logs.create_log_stream, ("logGroupName", "logStreamName")),
        ):
            try:
                make(**{name: self._where[name] for name in names})
            except logs.exceptions.ResourceAlreadyExistsException:
                continue

    def write(self, data: bytes) -> None:
        """Append the lines, each an event."""
        now = int(time.time() * 1000)
        lines = data.decode(errors="replace").split("\n")
        events = [{"timestamp": now, "message": line} for line in lines if line]
        if events:
            self._logs.put_log_events(**self._where, logEvents=events)
