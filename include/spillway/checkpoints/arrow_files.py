"""A folder of a checkpoint store as Arrow's file system, for libraries that read and write files: Ray is one.

What is written here is not fenced and is no checkpoint; it is for files on their way between the machines of one lease.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from spillway.checkpoints.bucket_url import BucketUrl, client_options, retries
from spillway.errors import StoreError

if TYPE_CHECKING:
    from datetime import timedelta

    from pyarrow.fs import FileSystem


def arrow_folder(url: str, folder: str, *, patience: timedelta) -> tuple[FileSystem, str]:
    """Return a file system and the path in it of `folder` below the store at `url`; nothing is asked of it yet.

    It can be pickled: other machines take their own credentials from their environment.

    Args:
        url: As for `open_store`.
        folder: Relative, with `/` between components.
        patience: For how long a request is repeated that fails as if by chance.

    Raises:
        StoreError: The URL is wrong, or pyarrow or obstore is not installed.
    """
    try:
        from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem
    except ImportError as error:
        raise StoreError(f"{url} needs pyarrow: pip install 'spillway[ray]'") from error
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalFileSystem(), str(Path(unquote(parts.path)) / folder)
    try:
        from obstore.fsspec import FsspecStore
    except ImportError as error:
        raise StoreError(
            f"{url} needs obstore, which is not installed: pip install 'spillway[stores]'"
        ) from error
    bucket = BucketUrl.parse(url)
    store = FsspecStore(
        cast("Any", bucket.scheme),
        config=cast("Any", dict(bucket.settings)),
        client_options=client_options(bucket, patience),
        retry_config=retries(patience),
    )
    within = "/".join(part for part in (bucket.bucket, bucket.folder, folder) if part)
    return PyFileSystem(FSSpecHandler(store)), within
