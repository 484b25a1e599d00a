"""Objects as files of a folder: local disk, or a shared file system that honours `flock` and `link`.

Every object is written to a file of its own below `.partial/`, large ones past the page cache, flushed to the disk, and only
then given its name, so its path has all of it or nothing. A writer holds a lock on its partial file while it lives; files that
nobody holds were left by writers that died, and the next writer removes them, by which no clock has to be trusted.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from spillway.checkpoints.direct_io import write_all
from spillway.errors import StoreAccessError, StoreError, StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from spillway.checkpoints.store import BytesLike

_PARTIAL = ".partial"
_WRITABLE = "make the folder writable for this user"
_ERRORS: Mapping[int, tuple[type[StoreError], str]] = MappingProxyType(
    {
        errno.EACCES: (StoreAccessError, _WRITABLE),
        errno.EPERM: (StoreAccessError, _WRITABLE),
        errno.EROFS: (
            StoreAccessError,
            "the file system is read-only: choose another folder",
        ),
        errno.ENOSPC: (StoreFullError, "the disk is full: free space, or choose another folder"),
        errno.EDQUOT: (
            StoreFullError,
            "the disk quota is used up: free space, or choose another folder",
        ),
        errno.EFBIG: (
            StoreFullError,
            "the file is larger than is allowed here: raise the limit (ulimit -f)",
        ),
        errno.ENOTDIR: (StoreError, "a file stands where a folder is needed: move it away"),
        errno.EIO: (StoreError, "the disk reports errors: check it, and choose another folder"),
    }
)
"""What is raised instead of each, and the remedy."""


class FolderStore:
    """An `ObjectStore` in a folder, which is made when the first object is written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._swept = False

    def __repr__(self) -> str:
        return f"FolderStore({str(self.root)!r})"

    def put(self, path: str, data: BytesLike) -> None:
        """Write the object, replacing one that is there; durable when this returns."""
        target = self._locate(path)
        with _explained("write", target), self._partial(data) as partial:
            _name_in_folder(target, lambda: partial.rename(target))

    def create(self, path: str, data: BytesLike) -> bool:
        """Write the object only if there is none; return whether this call wrote it. Atomic between processes."""
        target = self._locate(path)
        with _explained("write", target), self._partial(data) as partial:
            try:
                _name_in_folder(target, lambda: target.hardlink_to(partial))
            except FileExistsError:
                return False
        return True

    def get(self, path: str) -> bytes | None:
        """Return the object, or None when there is none."""
        target = self._locate(path)
        with _explained("read", target):
            try:
                return target.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                return None
            except NotADirectoryError:  # the path goes through an object, which is no folder
                if self.root.is_dir():
                    return None
                raise

    def list(self, prefix: str) -> list[str]:
        """Return the paths of all objects below the folder `prefix`, sorted."""
        folder = self._locate(prefix)
        with _explained("list", folder):
            found = [
                Path(parent, name).relative_to(self.root).as_posix()
                for parent, _, names in os.walk(folder, onerror=_raise_unless_gone)
                for name in names
            ]
        return sorted(path for path in found if not path.startswith(f"{_PARTIAL}/"))

    def versions(self, prefix: str) -> dict[str, str]:
        """Return, for each object below the folder `prefix`, a text that changes with its data."""
        found = {}
        for path in self.list(prefix):
            with _explained("list", self.root / path), suppress(FileNotFoundError):
                status = (self.root / path).stat()
                found[path] = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
        return found

    def delete(self, path: str) -> None:
        """Remove the object; one that is not there is not an error."""
        target = self._locate(path)
        with _explained("delete", target):
            target.unlink(missing_ok=True)
            self._remove_empty_parents(target)

    def flush(self, prefix: str) -> None:
        """Have what was removed from the folder `prefix` not come back when the power fails."""
        folder = self._locate(prefix)
        with _explained("flush", folder):
            for still_there in (folder, *folder.parents):
                with suppress(
                    FileNotFoundError
                ):  # it was empty, and its own removal is what has to last
                    _sync_folder(still_there)
                    return

    def _locate(self, path: str) -> Path:
        components = path.split("/")
        if not path or any(part in ("", ".", "..", _PARTIAL) for part in components):
            raise StoreError(f"{path!r} is not the path of an object: write it as a/b/c")
        return self.root.joinpath(*components)

    def _remove_empty_parents(self, target: Path) -> None:
        with suppress(OSError):  # not empty, or gone already
            for parent in target.parents:
                if parent == self.root:
                    return
                parent.rmdir()

    @contextmanager
    def _partial(self, data: BytesLike) -> Iterator[Path]:
        """Write `data` to a locked partial file, durably; remove it after if it has not been renamed."""
        folder = self.root / _PARTIAL
        _make_folder(folder)
        if not self._swept:
            _sweep(folder)
            self._swept = True
        partial, descriptor = _create_locked(folder)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
            yield partial
        finally:
            partial.unlink(missing_ok=True)
            os.close(descriptor)


@contextmanager
def _explained(action: str, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind, remedy = _ERRORS.get(error.errno or 0, (StoreError, "check the folder and its disk"))
        raise kind(f"cannot {action} {target}: {error.strerror}; {remedy}") from error


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _create_locked(folder: Path) -> tuple[Path, int]:
    while True:
        partial = folder / uuid.uuid4().hex
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return partial, descriptor
        os.close(descriptor)  # a sweep took it for a dead writer's before it was locked


def _sweep(folder: Path) -> None:
    """Remove the partial files of writers that died."""
    for partial in folder.iterdir():
        with suppress(FileNotFoundError, BlockingIOError), partial.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def _name_in_folder(target: Path, give_name: Callable[[], object]) -> None:
    """Give a finished file its name, durably; its folder may be removed as empty by somebody else meanwhile."""
    for _ in range(100):
        with suppress(FileNotFoundError):
            _make_folder(target.parent)
            give_name()
            _sync_folder(target.parent)
            return
    raise FileNotFoundError(errno.ENOENT, "its folder is removed again and again")


def _make_folder(folder: Path) -> None:
    """Make `folder` and its parents, each durably; one that is removed meanwhile is a `FileNotFoundError`."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    if not stat.S_ISDIR(folder.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
