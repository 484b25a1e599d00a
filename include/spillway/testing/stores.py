"""Stores for tests: one in memory, and others that list late, answer wrongly, or do something unexpected at their nth operation."""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.checkpoints.store import BytesLike, ObjectStore


T = TypeVar("T")


class MemoryStore:
    """An `ObjectStore` in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._lock = RLock()

    def put(self, path: str, data: BytesLike) -> None:
        """Write the object."""
        with self._lock:
            self.objects[path] = bytes(data)

    def create(self, path: str, data: BytesLike) -> bool:
        """Write the object only if there is none; return whether this call wrote it."""
        with self._lock:
            if path in self.objects:
                return False
            self.objects[path] = bytes(data)
        return True

    def get(self, path: str) -> bytes | None:
        """Return the object, or None."""
        return self.objects.get(path)

    def list(self, prefix: str) -> list[str]:
        """Return the paths of all objects below `prefix`, sorted."""
        with self._lock:
            return sorted(path for path in self.objects if path.startswith(f"{prefix}/"))

    def delete(self, path: str) -> None:
        """Remove the object."""
        with self._lock:
            self.objects.pop(path, None)


class LateStore:
    """A store whose listings miss the objects that were made last.

    Args:
        store: What is in it in truth.
        behind: How many objects are not listed yet.
        below: The folder whose objects these are; all others are listed.
    """

    def __init__(self, store: MemoryStore, *, behind: int, below: str = "") -> None:
        self._store = store
        self._behind = behind
        self._below = below
        self.put = store.put
        self.create = store.create
        self.get = store.get
        self.delete = store.delete

    def list(self, prefix: str) -> list[str]:
        """Return the paths of those objects below `prefix` that have been there for a while, sorted."""
        made = [path for path in self._store.objects if path.startswith(self._below)]
        unseen = set(made[len(made) - self._behind :]) if self._behind else set()
        return [path for path in self._store.list(prefix) if path not in unseen]


class GarblingStore:
    """A store some of whose answers are cut short on their way.

    Args:
        store: What is in it in truth.
        at: The first answer of `get`, counted from 0, that is.
        times: How many answers in a row are.

    Attributes:
        answers: How many there were.
    """

    def __init__(self, store: ObjectStore, *, at: int, times: int = 1) -> None:
        self.answers = 0
        self._store = store
        self._garbled = range(at, at + times)
        self.put = store.put
        self.create = store.create
        self.list = store.list
        self.delete = store.delete

    def get(self, path: str) -> bytes | None:
        """Return the object, or what is left of it, or None."""
        data = self._store.get(path)
        is_garbled = self.answers in self._garbled
        self.answers += 1
        return data[:-1] if data and is_garbled else data


class Died(BaseException):
    """The process that used the store is no more; nothing in it may catch this."""


class InterruptedStore:
    """A store whose nth operation, counted from 0, is interrupted before or after it has taken effect.

    Attributes:
        operations: How many operations there were.
    """

    def __init__(
        self, store: ObjectStore, interrupt: Callable[[], None], *, at: int, after: bool = False
    ) -> None:
        self.operations = 0
        self._store = store
        self._interrupt = interrupt
        self._at = at
        self._after = after

    def put(self, path: str, data: BytesLike) -> None:
        """Write the object."""
        self._operate(lambda: self._store.put(path, data))

    def create(self, path: str, data: BytesLike) -> bool:
        """Write the object only if there is none."""
        return self._operate(lambda: self._store.create(path, data))

    def get(self, path: str) -> bytes | None:
        """Return the object, or None."""
        return self._operate(lambda: self._store.get(path))

    def list(self, prefix: str) -> list[str]:
        """Return the paths of all objects below `prefix`."""
        return self._operate(lambda: list(self._store.list(prefix)))

    def delete(self, path: str) -> None:
        """Remove the object."""
        self._operate(lambda: self._store.delete(path))

    def _operate(self, operation: Callable[[], T]) -> T:
        is_it = self.operations == self._at
        self.operations += 1
        if is_it and not self._after:
            self._interrupt()
        result = operation()
        if is_it and self._after:
            self._interrupt()
        return result


def die() -> None:
    """Interrupt for good."""
    raise Died
