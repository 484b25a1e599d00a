"""Memory that a state is copied into before it is written: allocated once, aligned for the disk, and kept."""

from __future__ import annotations

import mmap
from contextlib import suppress

ALIGNMENT = 4096
"""What disks and pages are multiples of; the memory begins at one, and parts inside it should."""

_GRAIN = 1 << 21  # a huge page
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14, which Python does not name


def aligned(size: int) -> int:
    """Return the smallest multiple of `ALIGNMENT` that is at least `size`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class Staging:
    """One piece of memory, as large as the largest state so far; one state is in it at a time."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    @property
    def size(self) -> int:
        """Bytes that are allocated."""
        return 0 if self._memory is None else len(self._memory)

    def room(self, size: int) -> memoryview:
        """Return `size` bytes; what an earlier call returned must not be in use any more."""
        if not size:
            return memoryview(b"")
        if self._memory is None or len(self._memory) < size:
            self._memory = None  # before the larger one is there, so that both never are
            self._memory = _allocate(size)
        return memoryview(self._memory)[:size]


def _allocate(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, -(-size // _GRAIN) * _GRAIN, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # Huge pages are quicker to fill and to hand to the disk; children, such as a data loader's, would pay for a copy of
    # every page we write; pages that are there already do not delay the first copy. None of these has to work.
    for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_DONTFORK, _POPULATE_WRITE):
        with suppress(OSError):
            memory.madvise(advice)
    return memory
