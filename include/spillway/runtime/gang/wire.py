"""What members of a gang say to each other: JSON lines over TCP, after both sides have shown that they know the secret.

Nothing here encrypts. What travels is control, such as "stop", and the passing of a Ray cluster's token: let the members'
network be a private one, as training frameworks ask for too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import socket
import time
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from spillway.errors import GangError

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.runtime.gang.membership import Member

log = logging.getLogger(__name__)

Message = dict[str, Any]

SILENCE_SECONDS: Final = 10.0
"""A peer that says nothing for so long is lost; each says something every `PING_SECONDS`."""
PING_SECONDS: Final = 1.0

_MOST_BYTES: Final = 1 << 16
_KNOCK_SECONDS: Final = 0.2


class Line:
    """One connection. Sending is safe from any thread, receiving from one."""

    def __init__(self, connection: socket.socket, *, silence_seconds: float) -> None:
        connection.settimeout(silence_seconds)
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._file = connection.makefile("rb")
        self._lock = Lock()

    def send(self, message: Message) -> None:
        """Send a message; to a peer that is gone it is lost, which whoever receives from it learns."""
        data = json.dumps(message).encode() + b"\n"
        with self._lock, suppress(OSError):
            self._socket.sendall(data)

    def receive(self) -> Message | None:
        """Return the next message; None when the peer is gone, silent for too long, or makes no sense."""
        try:
            line = self._file.readline(_MOST_BYTES)
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """End the connection; what was sent still arrives."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # whoever receives stops
        with suppress(OSError):
            self._file.close()  # it keeps the connection open
        with suppress(OSError):
            self._socket.close()


def proof(secret: bytes, nonce: str, *facts: object) -> str:
    """Return what shows that whoever says `facts` knows the secret, for this connection only."""
    words = json.dumps([nonce, *facts]).encode()
    return hmac.new(secret, words, hashlib.sha256).hexdigest()


def greet(line: Line, secret: bytes, *, nodes: int) -> int | None:
    """Let a peer in, as the head: return its rank, or None when it is not one of ours."""
    nonce = secrets.token_hex(16)
    line.send({"nonce": nonce})
    hello = line.receive() or {}
    rank, theirs = hello.get("rank"), str(hello.get("nonce"))
    expected = proof(secret, nonce, "member", rank, hello.get("nodes"))
    if not hmac.compare_digest(expected, str(hello.get("proof"))):
        return None
    if hello.get("nodes") != nodes or not isinstance(rank, int) or not 0 < rank < nodes:
        log.warning("a member says that it is %s of %s, of %d", rank, hello.get("nodes"), nodes)
        return None
    line.send({"proof": proof(secret, theirs, "head")})
    return rank


def knock(member: Member, secret: bytes, *, silence_seconds: float) -> Line | None:
    """Call at the head once; return the connection, or None when it does not answer yet or is not ours."""
    try:
        connection = socket.create_connection(
            (member.head_address, member.port), timeout=silence_seconds
        )
    except OSError:
        return None
    line = Line(connection, silence_seconds=silence_seconds)
    nonce = secrets.token_hex(16)
    asked = str((line.receive() or {}).get("nonce"))
    line.send(
        {
            "rank": member.rank,
            "nodes": member.nodes,
            "nonce": nonce,
            "proof": proof(secret, asked, "member", member.rank, member.nodes),
        }
    )
    answer = str((line.receive() or {}).get("proof"))
    if hmac.compare_digest(proof(secret, nonce, "head"), answer):
        return line
    line.close()
    return None


def call_head(
    member: Member,
    secret: bytes,
    *,
    silence_seconds: float,
    limit_seconds: float,
    is_given_up: Callable[[], bool],
) -> Line:
    """Call at the head until it lets us in.

    Raises:
        GangError: It did not within the limit, or `is_given_up` came true.
    """
    deadline = time.monotonic() + limit_seconds
    while not is_given_up() and time.monotonic() < deadline:
        line = knock(member, secret, silence_seconds=silence_seconds)
        if line is not None:
            return line
        time.sleep(_KNOCK_SECONDS)  # the head may start later than we do; until the deadline
    raise GangError(
        f"member {member.rank} of {member.nodes} was not let in at {member.head_address}:{member.port}: "
        "see that the head has started, that its address is right (it came from "
        f"{member.source}) and that no firewall is between"
    )
