"""Stands between a client and an HTTP server, and lets things happen that happen on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from http.client import HTTPConnection
from threading import Lock
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from spillway.testing.http_server import QuietHandler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

_HANG_SECONDS: Final = 3.0
_CONDITIONS: Final = ("if-none-match", "x-goog-if-generation-match")
_HOP_BY_HOP: Final = ("connection", "keep-alive", "transfer-encoding", "content-length")


class Fault(StrEnum):
    """What happens to a request."""

    NONE = "none"
    LOSE_CONDITION = "the server never hears that it should create only"
    LOSE_REQUEST = "the connection breaks before the server has it"
    LOSE_ANSWER = "the server does it, and the connection breaks before it says so"
    CUT_ANSWER = "the connection breaks in the middle of the answer"
    FLIP_ANSWER = "a bit of the answer is not what was sent"
    HANG = "nothing is answered for longer than the client waits"
    BUSY = "the server says that it is busy"
    DENY = "the server says that it may not be done"


@dataclass
class Wire:
    """What the wire does.

    Attributes:
        fault: What happens to a request of a method and path.
        requests: The method of each.
        under_way: How many are on their way to the server or back now.
        most_at_once: How many were at the most.
    """

    fault: Callable[[str, str], Fault] = lambda _method, _path: Fault.NONE
    requests: list[str] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    _lock: Lock = field(default_factory=Lock)

    def break_once(self, fault: Fault, method: str, path: str = "") -> None:
        """Let `fault` happen to the next request of `method` on a path that contains `path`, and to no other."""
        left = [fault]

        def once(asked: str, where: str) -> Fault:
            return left.pop() if left and asked == method and path in where else Fault.NONE

        self.fault = once

    @contextmanager
    def carrying(self) -> Iterator[None]:
        """Count one more request as under way, until the block ends."""
        with self._lock:
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            yield
        finally:
            with self._lock:
                self.under_way -= 1


@contextmanager
def wire_to(endpoint: str) -> Iterator[tuple[str, Wire]]:
    """Pass on requests to `endpoint`; yield the URL to ask instead, and the wire that is in between."""
    parts = urlsplit(endpoint)

    class Handler(_Handler):
        wire = Wire()
        upstream = parts.netloc

    with serving(Handler) as url:
        yield url + parts.path, Handler.wire


class _Handler(QuietHandler):
    wire: Wire
    upstream: str

    def _serve(self) -> None:
        with self.wire.carrying():
            self._carry()

    def _carry(self) -> None:
        body = self.body()
        self.wire.requests.append(self.command)
        fault = self.wire.fault(self.command, self.path)
        match fault:
            case Fault.LOSE_REQUEST:
                self.close_connection = True
            case Fault.HANG:
                time.sleep(_HANG_SECONDS)
                self.close_connection = True
            case Fault.BUSY:
                self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
            case Fault.DENY:
                self._answer(403, [], b"<Error><Code>AccessDenied</Code></Error>")
            case _:
                self._pass_on(body, fault)

    def _pass_on(self, body: bytes, fault: Fault) -> None:
        status, headers, content = self._ask(body, fault)
        match fault:
            case Fault.LOSE_ANSWER:
                self.close_connection = True
            case Fault.CUT_ANSWER:
                self._answer(status, headers, content, sent=len(content) // 2)
            case Fault.FLIP_ANSWER:
                self._answer(status, headers, bytes([content[0] ^ 1]) + content[1:])
            case _:
                self._answer(status, headers, content)

    def _ask(self, body: bytes, fault: Fault) -> tuple[int, list[tuple[str, str]], bytes]:
        dropped = _CONDITIONS if fault is Fault.LOSE_CONDITION else ()
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in dropped
        }
        connection = HTTPConnection(self.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        *,
        sent: int | None = None,
    ) -> None:
        self.send_response(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content[:sent])
        self.close_connection = sent is not None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the names that the base class calls
