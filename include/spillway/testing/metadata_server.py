"""The frame of a metadata service on a free port of this machine; the vendors' own are in `metadata_vendors.py`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from email.message import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a service answers."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])


class MetadataServer:
    """A service that answers requests until the block is left.

    Attributes:
        clock_ahead: By how much its clock is ahead of this machine's.
        tells_time: Whether its answers carry a Date.
        is_mute: Whether it takes requests and never answers, as when packets are dropped on the way.
        requests: Method and path of each request, in order.
    """

    def __init__(self) -> None:
        self.clock_ahead = timedelta(0)
        self.tells_time = True
        self.is_mute = False
        self.requests: list[tuple[str, str]] = []
        self.closing = Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.wake()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.address}"

    def now(self) -> datetime:
        """Return the time by its own clock."""
        return datetime.now(UTC) + self.clock_ahead

    def reply(self, method: str, path: str, query: dict[str, str], headers: Message) -> Reply:
        """Return the answer to one request."""
        raise NotImplementedError

    def wake(self) -> None:
        """Let requests that wait look again."""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                parts = urlsplit(self.path)
                service.requests.append((self.command, parts.path))
                if service.is_mute:
                    service.closing.wait(60)
                    return
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                reply = service.reply(self.command, parts.path, query, self.headers)
                body = reply.body.encode()
                with suppress(ConnectionError):  # the asker did not wait
                    self.send_response_only(reply.status)
                    if service.tells_time:
                        self.send_header("Date", format_datetime(service.now(), usegmt=True))
                    for name, value in {**reply.headers, "Content-Length": str(len(body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = _answer  # noqa: N815  # http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
