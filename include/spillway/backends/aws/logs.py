"""Output of jobs in CloudWatch Logs, by byte offset on top of the service's tokens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.aws.failures import code_of
from spillway.backends.protocol import LogChunk
from spillway.errors import RejectedError

if TYPE_CHECKING:
    from spillway.backends.aws.session import Aws

MAX_LOG_BYTES: Final = 1 << 20
"""Largest piece of output returned at once, unless one answer of the service is larger; those end at 1 MiB too."""
REMEMBERED_STREAMS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """How far a stream was read: `token` is what goes on at byte `offset`."""

    offset: int = 0
    token: str | None = None


class LogReader:
    """Reads log streams on from offsets; the last place of each is remembered, and others are found by reading again.

    The service splits output into events at line ends, and drops those. Each event is shown as a line.
    """

    def __init__(self, aws: Aws, group: str) -> None:
        self._aws = aws
        self._group = group
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, stream: str, offset: int) -> LogChunk:
        """Return the stream's output from byte `offset` on; empty when there is nothing new, or no such stream yet."""
        place = self._remembered(stream, offset)
        data = b""
        while len(data) < MAX_LOG_BYTES:
            lines, token = self._next(stream, place.token)
            start = max(offset - place.offset, 0)
            data += lines[start:]
            if token is None or token == place.token:
                break
            place = _Place(offset=place.offset + len(lines), token=token)
        self._remember(stream, place)
        text = data.decode(errors="replace")
        return LogChunk(text=text, next_offset=offset + len(data))

    def _next(self, stream: str, token: str | None) -> tuple[bytes, str | None]:
        at = {} if token is None else {"nextToken": token}
        try:
            answer = self._aws.call(
                "logs",
                "GetLogEvents",
                logGroupName=self._group,
                logStreamName=stream,
                startFromHead=True,
                **at,
            )
        except RejectedError as error:
            if code_of(error.__cause__) == "ResourceNotFoundException":  # nothing was printed yet
                return b"", None
            with self._lock:
                self._places.pop(stream, None)  # tokens expire
            raise
        events = cast("list[dict[str, Any]]", answer.get("events", []))
        lines = "".join(f"{event['message'].rstrip(chr(10))}\n" for event in events).encode()
        return lines, answer.get("nextForwardToken")

    def _remembered(self, stream: str, offset: int) -> _Place:
        with self._lock:
            place = self._places.get(stream, _Place())
        return place if place.offset <= offset else _Place()

    def _remember(self, stream: str, place: _Place) -> None:
        with self._lock:
            self._places[stream] = place
            self._places.move_to_end(stream)
            if len(self._places) > REMEMBERED_STREAMS:
                self._places.popitem(last=False)
