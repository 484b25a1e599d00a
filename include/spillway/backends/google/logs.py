"""A job's output out of Cloud Logging, as bytes counted from its beginning."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.google.access import TIMEOUT_SECONDS
from spillway.backends.google.failures import translated
from spillway.backends.protocol import LogChunk

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LOG_BYTES: Final = 1 << 20
"""About how much output is returned at once."""

_PAGE: Final = 1000
_MAX_CURSORS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cursor:
    """How far a log was read: entries of `at` that are in `seen` are not wanted again."""

    offset: int = 0
    at: datetime | None = None
    seen: frozenset[str] = frozenset()


class CloudLog:
    """Logs of a project. An entry is a line; what Cloud Logging takes in late, behind what was read, is not seen.

    Reading on from where this object stopped asks for newer entries only; from elsewhere it reads from the beginning.
    """

    def __init__(self, client: Any, project: str, *, backend: str) -> None:
        self._client = client
        self._project = project
        self._backend = backend
        self._cursors: dict[str, _Cursor] = {}
        self._lock = threading.Lock()

    def read(self, entries: str, offset: int) -> LogChunk:
        """Return the lines that the filter `entries` finds, from byte `offset` on.

        Raises:
            TransientError: Cloud Logging could not be asked.
            AccessError: It may not be read.
        """
        cursor = self._cursors.get(entries, _Cursor())
        if cursor.offset != offset:
            cursor = _Cursor()
        text = b""
        with translated(self._backend, "Cloud Logging"):
            for entry in self._entries(entries, cursor):
                line = _line(entry)
                text += line[max(offset - cursor.offset, 0) :]
                cursor = _moved(cursor, entry, len(line))
                if len(text) >= MAX_LOG_BYTES:
                    break
        self._remember(entries, cursor)
        return LogChunk(text=text.decode(errors="replace"), next_offset=max(cursor.offset, offset))

    def _entries(self, entries: str, cursor: _Cursor) -> Iterator[Any]:
        since = f' AND timestamp>="{cursor.at.isoformat()}"' if cursor.at else ""
        request = {
            "resource_names": [f"projects/{self._project}"],
            "filter": entries + since,
            "order_by": "timestamp asc",
            "page_size": _PAGE,
        }
        found = self._client.list_log_entries(request=request, timeout=TIMEOUT_SECONDS, retry=None)
        return (entry for entry in found if entry.insert_id not in cursor.seen)

    def _remember(self, entries: str, cursor: _Cursor) -> None:
        with self._lock:
            self._cursors.pop(entries, None)
            self._cursors[entries] = cursor
            while len(self._cursors) > _MAX_CURSORS:
                del self._cursors[next(iter(self._cursors))]


def _moved(cursor: _Cursor, entry: Any, length: int) -> _Cursor:
    same = entry.timestamp == cursor.at
    seen = (cursor.seen if same else frozenset[str]()) | {str(entry.insert_id)}
    return _Cursor(offset=cursor.offset + length, at=entry.timestamp, seen=seen)


def _line(entry: Any) -> bytes:
    text: object = entry.text_payload
    if not text and entry.json_payload:
        text = entry.json_payload.get("message", "")
    return f"{str(text).rstrip(chr(10))}\n".encode()
