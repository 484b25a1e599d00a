"""Containers of a make-believe AWS: their commands run as processes of this machine, and their output goes to a log stream."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Final

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
        self._process = subprocess.Popen(  # noqa: S603  # the tests' own commands
            command,
            env={**inherited, "AWS_EC2_METADATA_DISABLED": "true", **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._printed = printed
        self._ended = ended
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def stop(self, grace_seconds: float = STOP_SECONDS) -> None:
        """Send SIGTERM now and SIGKILL after the grace period, without waiting for either."""
        threading.Thread(target=self._stop, args=(grace_seconds,), daemon=True).start()

    def kill(self) -> None:
        """Send SIGKILL to everything that the command started in its group."""
        self._signal(signal.SIGKILL)

    def join(self) -> None:
        """Wait until `ended` was told."""
        self._waiter.join()

    def _stop(self, grace_seconds: float) -> None:
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def _wait(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        while data := os.read(self._process.stdout.fileno(), _CHUNK):
            lines, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                self._printed(lines)
        if rest:
            self._printed(rest)
        self._process.stdout.close()
        code = self._process.wait()
        self._ended(128 - code if code < 0 else code)


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
