"""Checksums of parts: of whole ones, and of parts that are still being copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import xxhash

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.checkpoints.store import BytesLike

ALGORITHM: Final = "xxh3_128"
"""Finds every error of disks, memory and networks, at a speed that costs the work beside it next to nothing."""

_PIECE_BYTES = 8 << 20


def checksum(data: BytesLike) -> str:
    """Return the checksum of `data` as `algorithm:hex`."""
    return _name(xxhash.xxh3_128(data))


class FollowingChecksums:
    """Checksums of parts that are filled from front to back, computed by another thread right behind the one that fills them.

    The work is blocked while its state is copied, so a second core is idle then, and will not be later.

    Args:
        submit: Has one call after the other done by that thread.
    """

    def __init__(
        self, submit: Callable[[Callable[[memoryview], None], memoryview], object]
    ) -> None:
        self._submit = submit
        self._hashes: dict[str, xxhash.xxh3_128] = {}
        self._ends: dict[str, int] = {}

    def filled(self, name: str, part: memoryview, end: int) -> None:
        """Take note that the part is filled up to byte `end`."""
        begin = self._ends.setdefault(name, 0)
        if end - begin >= _PIECE_BYTES or end == len(part):
            running = self._hashes.setdefault(name, xxhash.xxh3_128())
            self._submit(running.update, part[begin:end])
            self._ends[name] = end

    def results(self) -> dict[str, str]:
        """Return the checksum of each part by its name; for the other thread, after all that was submitted."""
        return {name: _name(running) for name, running in self._hashes.items()}


def _name(running: xxhash.xxh3_128) -> str:
    return f"{ALGORITHM}:{running.hexdigest()}"
