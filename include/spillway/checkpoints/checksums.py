"""Checksums of parts: of one now, and of several while they are being written.

A large part is summed up in blocks, each by itself, so that several threads can do it at once and in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import xxhash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Executor, Future

    from spillway.checkpoints.store import BytesLike

ALGORITHM: Final = "xxh3_128"
"""Finds every error of disks, memory and networks, at a speed that costs the work beside it next to nothing."""

BLOCK_BYTES: Final = 16 << 20
IN_BLOCKS: Final = "xxh3_128_of_16_mib_blocks"
"""What is longer than a block: `ALGORITHM` of the digests of its blocks, one after the other."""


class KnownChecksums(Protocol):
    """Checksums that need not be computed any more, by the name of the part; a mapping is one."""

    def get(self, part: str, /) -> str | None:
        """Return the checksum of `part`, or None when it is not known."""
        ...


def checksum(data: BytesLike, digests: Sequence[bytes | None] = ()) -> str:
    """Return the checksum of `data` as `algorithm:hex`; with the `digests` of its blocks that are known."""
    view = memoryview(data).cast("B")
    known = dict(enumerate(digests))
    found = [
        known.get(number) or xxhash.xxh3_128(view[begin : begin + BLOCK_BYTES]).digest()
        for number, begin in enumerate(range(0, max(len(view), 1), BLOCK_BYTES))
    ]
    if len(found) == 1:
        return f"{ALGORITHM}:{found[0].hex()}"
    return f"{IN_BLOCKS}:{xxhash.xxh3_128(b''.join(found)).hexdigest()}"


def matches(data: BytesLike, expected: str) -> bool:
    """Return whether `data` has that checksum, of either kind whatever its length.

    Raises:
        KeyError: The algorithm is neither; its name.
    """
    algorithm = expected.partition(":")[0]
    if algorithm not in (ALGORITHM, IN_BLOCKS):
        raise KeyError(algorithm)
    if algorithm == ALGORITHM:
        return f"{ALGORITHM}:{xxhash.xxh3_128(data).hexdigest()}" == expected
    return checksum(data) == expected


class BackgroundChecksums:
    """Checksums that another thread completes while the parts go to the disk, which leaves a core idle."""

    def __init__(
        self,
        parts: Mapping[str, BytesLike],
        helper: Executor,
        digests: Mapping[str, Sequence[bytes | None]],
    ) -> None:
        self._found: dict[str, Future[str]] = {
            name: helper.submit(checksum, part, digests.get(name, ()))
            for name, part in parts.items()
        }

    def get(self, part: str, /) -> str | None:
        """Return the checksum of `part`; waits until it is there."""
        found = self._found.get(part)
        return None if found is None else found.result()
