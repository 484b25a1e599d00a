"""Ports of this machine for servers that are about to start."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from typing import Final

from spillway.runtime.gang.membership import LOOPBACK

_FROM: Final = range(20_000, 29_000)
"""Below what systems take for the near end of connections: one of those may be gone before the server listens."""


def free_port(*, following: int = 0) -> int:
    """Return a port that nobody listens on now, nor on the `following` ones after it."""
    dice = random.SystemRandom()  # two processes that ask at once get different ones
    while True:
        port = dice.choice(_FROM)
        with suppress(OSError), ExitStack() as probes:
            for number in range(port, port + following + 1):
                probe = probes.enter_context(socket.socket())
                probe.bind((LOOPBACK, number))
            return port
