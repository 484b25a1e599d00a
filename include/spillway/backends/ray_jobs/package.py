"""A folder as the package that Ray's nodes unpack: the same files give the same name, so it is sent once."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_BYTES: Final = 100 << 20
"""Packages are kept in the memory of the cluster's head, and sent within one call."""

ALWAYS_LEFT_OUT: Final = (".git", ".venv", "venv", "__pycache__", "*.pyc", "node_modules")

_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)


def pack(folder: str, excludes: Sequence[str]) -> tuple[str, bytes]:
    """Return name and content of the folder's package.

    Raises:
        SpecError: It is too large, or cannot be read.
    """
    buffer = io.BytesIO()
    try:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, name in _files(Path(folder), (*ALWAYS_LEFT_OUT, *excludes)):
                entry = zipfile.ZipInfo(name, _LONG_AGO)
                entry.external_attr = (path.stat().st_mode & 0o777) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
                _check_size(folder, buffer.tell())
    except OSError as error:
        raise SpecError(f"cannot read the option working_dir {folder}: {error}") from error
    data = buffer.getvalue()
    return f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:40]}.zip", data


def _files(folder: Path, left_out: Sequence[str]) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.iterdir()):
        yield from _below(path, path.name, left_out)


def _below(path: Path, name: str, left_out: Sequence[str]) -> Iterator[tuple[Path, str]]:
    if any(fnmatch.fnmatch(path.name, one) or fnmatch.fnmatch(name, one) for one in left_out):
        return
    if path.is_file():
        yield path, name
    elif path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _below(child, f"{name}/{child.name}", left_out)


def _check_size(folder: str, size: int) -> None:
    if size > MAX_BYTES:
        raise SpecError(
            f"the option working_dir {folder} has more than {MAX_BYTES >> 20} MiB to send; leave data out by the option "
            "excludes, or put the code into an object store and name its URI"
        )
