"""Where objects are kept: the few operations that checkpoints, heartbeats and results are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from spillway.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""What can be written: any contiguous buffer, whatever its items are."""


class ObjectStore(Protocol):
    """Objects by path, whole or not at all: nobody ever reads half of one.

    Paths are relative, with `/` between components. What is written is any buffer; no store copies it whole, so the caller
    leaves it as it is until the call returns. Failures are `StoreError`.
    """

    def put(self, path: str, data: BytesLike) -> None:
        """Write the object, replacing one that is there; durable when this returns."""
        ...

    def create(self, path: str, data: BytesLike) -> bool:
        """Write the object only if there is none; return whether this call wrote it. Atomic between processes."""
        ...

    def get(self, path: str) -> bytes | None:
        """Return the object, or None when there is none."""
        ...

    def list(self, prefix: str) -> Iterable[str]:
        """Return the paths of all objects below the folder `prefix`, sorted."""
        ...

    def delete(self, path: str) -> None:
        """Remove the object; one that is not there is not an error."""
        ...


@runtime_checkable
class SupportsVersions(Protocol):
    """A store whose listing tells which objects have changed."""

    def versions(self, prefix: str) -> Mapping[str, str]:
        """Return, for each object below the folder `prefix`, a text that changes with its data; one listing."""
        ...


@runtime_checkable
class SupportsFlush(Protocol):
    """A store where what was removed may come back when the power fails, until it is flushed."""

    def flush(self, prefix: str) -> None:
        """Have what was removed from the folder `prefix` not come back when the power fails."""
        ...


def check_path(path: str) -> str:
    """Return `path` if it is the path of an object.

    Raises:
        StoreError: It is not.
    """
    # Azure takes a backslash for a slash.
    if "\\" in path or any(component in ("", ".", "..") for component in path.split("/")):
        raise StoreError(f"{path!r} is not the path of an object: write it as a/b/c")
    return path
