"""Copy arrays to where they are written from, and sum up each piece while it is in the cache: one pass and not two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from spillway.checkpoints.checksums import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Executor


WORTH_HELP_BYTES: Final = 64 << 20
"""Less than this is copied before a second thread would have woken up."""

_CHUNK_BYTES: Final = 512 << 10
"""What is copied and then summed up: it and its copy are in the cache of a core."""


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes that belong at `begin` of a part."""

    begin: int
    data: NDArray[np.uint8]


def copy_all(
    parts: Sequence[tuple[memoryview, Sequence[Source]]], helper: Executor | None = None
) -> list[list[bytes | None]]:
    """Copy the sources of each part into it.

    Args:
        parts: Each part with its sources, in order and apart; what is between them is there already.
        helper: Copies half of what is worth it: the work waits for the copy, so a second core is idle.

    Returns:
        For each part the digests of its blocks of `BLOCK_BYTES`; None for those that nothing was copied to.
    """
    work: list[tuple[int, int, NDArray[np.uint8], list[Source]]] = []
    digests: list[list[bytes | None]] = []
    for part, sources in parts:
        blocks = _blocks(len(part), sources)
        digests.append([None] * len(blocks))
        target = np.frombuffer(part, dtype=np.uint8)
        work += [
            (len(digests) - 1, number, target[begin : begin + BLOCK_BYTES], found)
            for number, (begin, found) in enumerate(blocks)
            if found
        ]

    def copy(jobs: Iterable[tuple[int, int, NDArray[np.uint8], list[Source]]]) -> None:
        for part, number, target, found in jobs:
            digests[part][number] = _fill(target, found)

    jobs = iter(work)  # of both threads: who is done takes the next
    is_worth_it = sum(len(target) for _, _, target, _ in work) >= WORTH_HELP_BYTES
    helped = helper.submit(copy, jobs) if helper is not None and is_worth_it else None
    copy(jobs)
    if helped is not None:
        helped.result()
    return digests


def _blocks(size: int, sources: Sequence[Source]) -> list[tuple[int, list[Source]]]:
    """Return where each block begins, and what belongs into it, counted from there."""
    blocks: list[tuple[int, list[Source]]] = [(begin, []) for begin in range(0, size, BLOCK_BYTES)]
    for source in sources:
        done = 0
        while done < len(source.data):
            begin, found = blocks[(source.begin + done) // BLOCK_BYTES]
            place = source.begin + done - begin
            piece = source.data[done : done + BLOCK_BYTES - place]
            found.append(Source(place, piece))
            done += len(piece)
    return blocks


def _fill(target: NDArray[np.uint8], sources: Sequence[Source]) -> bytes:
    """Copy the sources into a block and return the digest of all that is in it then."""
    digest = xxhash.xxh3_128()
    done = 0
    for source in sources:
        digest.update(target[done : source.begin].data)
        for begin in range(0, len(source.data), _CHUNK_BYTES):
            piece = source.data[begin : begin + _CHUNK_BYTES]
            done = source.begin + begin + len(piece)
            copied = target[done - len(piece) : done]
            np.copyto(copied, piece)
            digest.update(copied.data)
    digest.update(target[done:].data)
    return digest.digest()
