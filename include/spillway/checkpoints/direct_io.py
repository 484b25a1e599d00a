"""Write large buffers to a file past the page cache, where the file system allows it.

What goes through the cache is copied by the kernel and written back by it, on the cores that the work beside would have used.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from spillway.checkpoints.staging import ALIGNMENT, Staging

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.checkpoints.store import BytesLike

LEAST_BYTES = 1 << 20
"""A smaller buffer is written through the cache: for it, going to the disk at once takes longer than it saves."""

_CHUNK_BYTES = 32 << 20
_BOUNCE_BYTES = 4 << 20


def write_all(descriptor: int, data: BytesLike) -> None:
    """Write all of `data` where the file is at, a multiple of `ALIGNMENT`; call `fsync` to have it durable.

    Memory that is aligned, such as `Staging` gives, goes to the disk as it is; any other by way of a small piece that is.
    """
    rest = memoryview(data).cast("B")
    if len(rest) >= LEAST_BYTES:
        rest = _write_directly(descriptor, rest)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _write_directly(descriptor: int, data: memoryview) -> memoryview:
    """Write as much of `data` as can go past the cache, and return what is left."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except (AttributeError, OSError):  # neither every system nor every file system has it
        return data
    try:
        rest = _write_blocks(descriptor, data, _as_it_is)
        return _write_blocks(descriptor, rest, _Bounce()) if len(rest) == len(data) else rest
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def _write_blocks(
    descriptor: int, data: memoryview, block: Callable[[memoryview], memoryview]
) -> memoryview:
    """Write whole blocks until there are no more or one is refused; the cached way then says what is wrong, if anything."""
    while len(data) >= ALIGNMENT:
        try:
            written = os.write(descriptor, block(data[: len(data) // ALIGNMENT * ALIGNMENT]))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return data
            raise
        data = data[written:]
        if written % ALIGNMENT:
            return data
    return data


def _as_it_is(data: memoryview) -> memoryview:
    return data[:_CHUNK_BYTES]


class _Bounce:
    """Copies data to aligned memory, one piece at a time."""

    def __init__(self) -> None:
        self._staging = Staging()

    def __call__(self, data: memoryview) -> memoryview:
        piece = data[:_BOUNCE_BYTES]
        room = self._staging.room(len(piece))
        room[:] = piece
        return room
