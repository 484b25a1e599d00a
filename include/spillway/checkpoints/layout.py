"""Where the objects of a task are, below its prefix; each name holds the fencing token of the lease that wrote it.

```
claims/{token}.json                    a lease has begun, and which checkpoint it began from
manifests/{token}-{step}.json          a checkpoint exists
parts/{token}-{step}/{writer}/{name}   what it is made of
```

A lease may run twice, when a machine that was given up for dead is not. So each writer has a folder of its own for parts,
and the manifest, of which there can be only one, says whose count.
Numbers have twelve digits, so names sort as their numbers do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from spillway.checkpoints.store import SupportsFlush

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spillway.checkpoints.store import ObjectStore

_CLAIM = re.compile(r"(\d{12})\.json")
_NAME = re.compile(r"(\d{12})-(\d{12})")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CheckpointName:
    """Which lease saved it, and at which step."""

    token: int
    step: int

    def __post_init__(self) -> None:
        for number in (self.token, self.step):
            if not 0 <= number < 10**12:
                raise ValueError(f"{number} is not a number of at most twelve digits")

    def __str__(self) -> str:
        return f"{self.token:012d}-{self.step:012d}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the name that `text` is, or None."""
        match = _NAME.fullmatch(text)
        return cls(token=int(match[1]), step=int(match[2])) if match else None


def claim_path(prefix: str, token: int) -> str:
    """Return where the claim of lease `token` is."""
    return f"{prefix}/claims/{token:012d}.json"


def manifest_path(prefix: str, name: CheckpointName) -> str:
    """Return where the manifest is."""
    return f"{prefix}/manifests/{name}.json"


def part_path(name: CheckpointName, writer: str, part: str) -> str:
    """Return where a part is, relative to the task's prefix."""
    return f"parts/{name}/{writer}/{part}"


def claimed_tokens(store: ObjectStore, prefix: str) -> list[int]:
    """Return the tokens of all leases that have begun, smallest first."""
    names = (path.rpartition("/")[2] for path in store.list(f"{prefix}/claims"))
    return sorted(int(match[1]) for name in names if (match := _CLAIM.fullmatch(name)))


def manifest_names(store: ObjectStore, prefix: str) -> list[CheckpointName]:
    """Return the names of all manifests, those that no longer count included."""
    files = (path.rpartition("/")[2] for path in store.list(f"{prefix}/manifests"))
    names = (CheckpointName.parse(file.removesuffix(".json")) for file in files)
    return sorted(name for name in names if name is not None)


def remove_manifests(store: ObjectStore, prefix: str, names: Sequence[CheckpointName]) -> None:
    """Remove manifests for good, so that the parts can be removed next: no manifest is ever found without its parts."""
    for name in names:
        store.delete(manifest_path(prefix, name))
    if names and isinstance(store, SupportsFlush):
        store.flush(f"{prefix}/manifests")


def part_paths(store: ObjectStore, prefix: str) -> dict[CheckpointName, list[str]]:
    """Return the paths of all parts in the store, by the checkpoint they were written for."""
    found: dict[CheckpointName, list[str]] = {}
    for path in store.list(f"{prefix}/parts"):
        name = CheckpointName.parse(path.removeprefix(f"{prefix}/parts/").partition("/")[0])
        if name is not None:
            found.setdefault(name, []).append(path)
    return found
