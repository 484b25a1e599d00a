"""Checksums of parts: of one now, and of several while they are being written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import xxhash

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor, Future

    from spillway.checkpoints.store import BytesLike

ALGORITHM: Final = "xxh3_128"
"""Finds every error of disks, memory and networks, at a speed that costs the work beside it next to nothing."""


class KnownChecksums(Protocol):
    """Checksums that need not be computed any more, by the name of the part; a mapping is one."""

    def get(self, part: str, /) -> str | None:
        """Return the checksum of `part`, or None when it is not known."""
        ...


def checksum(data: BytesLike) -> str:
    """Return the checksum of `data` as `algorithm:hex`."""
    return f"{ALGORITHM}:{xxhash.xxh3_128(data).hexdigest()}"


class BackgroundChecksums:
    """Checksums that another thread computes while the parts go to the disk, which leaves a core idle."""

    def __init__(self, parts: Mapping[str, BytesLike], helper: Executor) -> None:
        self._found: dict[str, Future[str]] = {
            name: helper.submit(checksum, part) for name, part in parts.items()
        }

    def get(self, part: str, /) -> str | None:
        """Return the checksum of `part`; waits until it is there."""
        found = self._found.get(part)
        return None if found is None else found.result()
