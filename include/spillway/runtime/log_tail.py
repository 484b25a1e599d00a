"""The last lines that a job printed, kept in memory beside what goes to the real output.

Only what Python prints passes here: the output of child processes and of C libraries goes its own way. Copying at the level
of file descriptors would catch that too, but what a crashing process says last would then be lost on its way.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 16 * 1024
MAX_LINES = 100


def unicode(text: str) -> str:
    """Return `text` as UTF-8 can hold it: Python has the names of files that are none with halves of characters."""
    return text.encode(errors="backslashreplace").decode()


class LogTail:
    """The end of a text that grows; for any number of threads."""

    def __init__(self) -> None:
        self._text = ""
        self._lock = RLock()  # a signal handler may print while the thread it interrupts does

    def write(self, text: str) -> None:
        """Add `text` at the end."""
        with self._lock:
            self._text = (self._text + unicode(text))[-MAX_BYTES:]

    def read(self, *, max_bytes: int = MAX_BYTES, max_lines: int = MAX_LINES) -> str:
        """Return the last whole lines that fit; of a line that was overwritten, as progress bars do, how it ended."""
        with self._lock:
            text = self._text
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip("\n").split("\n")]
        kept: list[str] = []
        size = 0
        for line in reversed(lines[-max_lines:]):
            size += len(line.encode(errors="replace")) + 1
            if size > max_bytes + 1:
                break
            kept.append(line)
        if not kept and max_bytes > 0:  # one line that is longer than all that is kept
            return lines[-1].encode(errors="replace")[-max_bytes:].decode(errors="ignore")
        return "\n".join(reversed(kept))


class _Tee:
    """A stream whose text also goes to a tail; everything else is the stream's own."""

    def __init__(self, stream: TextIO, tail: LogTail) -> None:
        self._stream = stream
        self._tail = tail

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._tail.write(text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def kept_output() -> Iterator[LogTail]:
    """Keep the tail of what is printed to standard output and standard error until the block is left."""
    tail = LogTail()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", _Tee(stream, tail)) for stream in before)
    try:
        yield tail
    finally:
        sys.stdout, sys.stderr = before
