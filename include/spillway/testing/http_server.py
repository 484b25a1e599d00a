"""A small HTTP server on a free port of this machine, for fakes that speak over the wire."""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections, answers at once, and says nothing; the client reports what goes wrong."""

    protocol_version = "HTTP/1.1"

    def clock_ahead(self) -> timedelta:
        """Return how far the server's clock is ahead, by which answers are dated."""
        return timedelta(0)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return an instant as the header `Date` has it, now unless one is told."""
        told = time.time() if timestamp is None else timestamp
        return super().date_time_string(told + self.clock_ahead().total_seconds())

    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def body(self) -> bytes:
        """Return what came with the request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a client that keeps its connection does not keep us
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that go away before they have read the answer."""


@contextmanager
def serving(handler: type[QuietHandler], encryption: ssl.SSLContext | None = None) -> Iterator[str]:
    """Answer requests by `handler`, in TLS if `encryption` is given, until the block ends; yield the server's URL."""
    server = _Server(("127.0.0.1", 0), handler)
    if encryption is not None:
        server.socket = encryption.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if encryption else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
