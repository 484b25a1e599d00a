"""Which store a URL means."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from spillway.checkpoints.bucket import BucketStore
from spillway.checkpoints.bucket_url import SCHEMES
from spillway.checkpoints.folder import FolderStore
from spillway.errors import StoreUrlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spillway.checkpoints.store import ObjectStore


def open_store(url: str) -> ObjectStore:
    """Return the store at `url`; nothing is read or written yet.

    Raises:
        StoreUrlError: The URL names no store we know, or names it wrongly.
    """
    parts = urlsplit(url)
    opener = _OPENERS.get(parts.scheme)
    if opener is None:
        known = ", ".join(f"{scheme}://" for scheme in sorted(_OPENERS))
        raise StoreUrlError(f"{url!r} names no store: its scheme is not one of {known}")
    return opener(parts)


def _open_bucket(parts: SplitResult) -> BucketStore:
    return BucketStore(parts.geturl())


def _open_folder(parts: SplitResult) -> FolderStore:
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_absolute():
        raise StoreUrlError(
            f"{parts.geturl()!r} is no folder of this machine: write file:// and then an absolute"
            " path, three slashes in all, such as file:///var/lib/spillway"
        )
    return FolderStore(path)


_OPENERS: Mapping[str, Callable[[SplitResult], ObjectStore]] = MappingProxyType(
    {"file": _open_folder, **dict.fromkeys(SCHEMES, _open_bucket)}
)
