"""Objects in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage, all through obstore.

Large objects are written and read in pieces of 16 MiB, two at a time, so that memory stays bounded whatever their size.

`create` rests on the store's conditional write. Not every store has one, and some accept the condition and ignore it, so
the first `create` tries it out on an object of its own. Each created object carries a mark of the call that wrote it:
when an answer is lost and the request is sent again, the store refuses what it has already done, and the mark tells that
refusal from somebody else's object.
"""

from __future__ import annotations

import io
import logging
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Final

from spillway.checkpoints.bucket_errors import explain, is_bucket_missing, is_range_refused
from spillway.checkpoints.bucket_url import BucketUrl, connect
from spillway.checkpoints.store import check_path
from spillway.errors import StoreError, StoreUnavailableError, UnfencedStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore import GetOptions, ObjectMeta

    from spillway.checkpoints.store import BytesLike

log = logging.getLogger(__name__)

PATIENCE: Final = timedelta(minutes=3)
"""For how long a request is repeated that fails as if by chance."""

PIECE_BYTES: Final = 16 * 2**20
"""Size of the pieces that large objects are written and read in."""

_MOST_PIECES: Final = 10_000
"""Source: Amazon S3 User Guide, "Amazon S3 multipart upload limits"; the others allow as many or more."""
_AT_ONCE: Final = 2
_WRITER: Final = "writer"  # Azure takes letters only
_CREATE_ATTEMPTS: Final = 3
_LOST: Final = "two processes that run the same lease could both commit a step, and one would not know that its own was replaced"


class BucketStore:
    """An `ObjectStore` in a bucket, or in a folder of it. For any number of threads, but not across a fork.

    Attributes:
        place: Its URL, without what the query sets.
    """

    def __init__(self, url: str, *, patience: timedelta = PATIENCE) -> None:
        """Open the bucket at `url`; nothing is asked of it yet.

        Raises:
            StoreError: The URL is no bucket's, or obstore is not installed.
        """
        parsed = BucketUrl.parse(url)
        self.place = parsed.place
        self._scheme = parsed.scheme
        self._must_fence = parsed.is_fenced
        self._client = connect(parsed, patience=patience)
        import obstore  # here, because `connect` says what to install when it is missing

        self._api = obstore
        self._failures = (obstore.exceptions.BaseError, OSError, ValueError, NotImplementedError)
        self._creates_once: bool | None = None
        self._trying = Lock()

    def __repr__(self) -> str:
        return f"BucketStore({self.place!r})"

    def put(self, path: str, data: BytesLike) -> None:
        """Write the object, replacing one that is there; durable when this returns."""
        content = _as_bytes(data)
        with self._explained("write", check_path(path)):
            self._api.put(
                self._client,
                path,
                content,
                use_multipart=len(content) > PIECE_BYTES,
                chunk_size=max(PIECE_BYTES, -(-len(content) // _MOST_PIECES)),
                max_concurrency=_AT_ONCE,
            )

    def create(self, path: str, data: BytesLike) -> bool:
        """Write the object only if there is none; return whether this call wrote it. Atomic between processes.

        Raises:
            UnfencedStoreError: The store would write it in any case.
        """
        check_path(path)
        if self._can_fence():
            return self._create(path, data)
        if self._exists(path):
            return False
        self.put(path, data)
        return True

    def get(self, path: str) -> bytes | None:
        """Return the object, or None when there is none."""
        with self._explained("read", check_path(path)):
            try:
                return self._read(path)
            except FileNotFoundError as error:
                if is_bucket_missing(error):
                    raise
                return None

    def list(self, prefix: str) -> list[str]:
        """Return the paths of all objects below the folder `prefix`, sorted."""
        with self._explained("list", check_path(prefix)):
            chunks = self._api.list(self._client, prefix=prefix)
            return sorted(meta["path"] for chunk in chunks for meta in chunk)

    def versions(self, prefix: str) -> dict[str, str]:
        """Return, for each object below the folder `prefix`, a text that changes with its data; one listing."""
        with self._explained("list", check_path(prefix)):
            chunks = self._api.list(self._client, prefix=prefix)
            return {
                meta["path"]: f"{meta['e_tag']} {meta['last_modified']}"
                for chunk in chunks
                for meta in chunk
            }

    def delete(self, path: str) -> None:
        """Remove the object; one that is not there is not an error."""
        with self._explained("delete", check_path(path)):
            try:
                self._api.delete(self._client, path)
            except FileNotFoundError as error:
                if is_bucket_missing(error):
                    raise

    def _create(self, path: str, data: BytesLike) -> bool:
        writer = uuid.uuid4().hex
        for _ in range(_CREATE_ATTEMPTS):
            with self._explained("write", path):
                try:
                    self._api.put(
                        self._client,
                        path,
                        _as_bytes(data),
                        mode="create",
                        attributes={_WRITER: writer},
                    )
                    return True
                except self._api.exceptions.AlreadyExistsError:
                    attributes = self._attributes(path)
            if attributes is not None:
                return attributes.get(_WRITER) == writer
        raise StoreUnavailableError(
            f"cannot write {self.place}/{path}: it is refused as being there, and is not there; try again"
        )

    def _exists(self, path: str) -> bool:
        with self._explained("read", path):
            return self._attributes(path) is not None

    def _attributes(self, path: str) -> Mapping[str, str] | None:
        try:
            found = self._api.get(self._client, path, options={"head": True})
        except FileNotFoundError as error:
            if is_bucket_missing(error):
                raise
            return None
        return {str(name): value for name, value in found.attributes.items()}

    def _read(self, path: str) -> bytes:
        try:
            first = self._api.get(self._client, path, options={"range": (0, PIECE_BYTES)})
        except self._api.exceptions.GenericError as error:
            if is_range_refused(error):  # of an empty object
                return b""
            raise
        piece = first.bytes()
        if first.meta["size"] <= PIECE_BYTES:
            return bytes(piece)
        whole = io.BytesIO()
        whole.write(piece)
        del piece
        for following in self._read_after_first(first.meta):
            whole.write(following)
        return whole.getvalue()  # what was written, not a copy of it

    def _read_after_first(self, meta: ObjectMeta) -> Iterator[BytesLike]:
        """Yield the following pieces of the same version of an object, `_AT_ONCE` of them under way at a time."""

        def read(start: int) -> BytesLike:
            options: GetOptions = {
                "range": (start, min(start + PIECE_BYTES, meta["size"])),
                "if_match": meta["e_tag"],
            }
            return memoryview(self._api.get(self._client, meta["path"], options=options).bytes())

        starts = iter(range(PIECE_BYTES, meta["size"], PIECE_BYTES))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            under_way = deque(pool.submit(read, start) for start in islice(starts, _AT_ONCE))
            while under_way:
                yield under_way.popleft().result()
                under_way.extend(pool.submit(read, start) for start in islice(starts, 1))

    def _can_fence(self) -> bool:
        with self._trying:
            if self._creates_once is None:
                self._creates_once = self._try_to_create_twice()
                if not self._creates_once and not self._must_fence:
                    log.warning("%s ignores create-only writes: %s", self.place, _LOST)
        if self._must_fence and not self._creates_once:
            raise UnfencedStoreError(
                f"{self.place} ignores create-only writes: {_LOST}. Use another store (Ceph's gateway keeps"
                " them on buckets without versioning), or add ?fencing=off to its URL to go without"
            )
        return self._creates_once

    def _try_to_create_twice(self) -> bool:
        path = f".spillway/{uuid.uuid4().hex}"
        try:
            return self._create(path, b"first") and not self._create(path, b"second")
        except UnfencedStoreError:
            return False
        finally:
            with suppress(StoreError):  # an empty folder of its own is no reason to stop
                self.delete(path)

    @contextmanager
    def _explained(self, action: str, path: str) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            place = f"{action} {self.place}/{path}"
            raise explain(error, action=place, scheme=self._scheme) from error


def _as_bytes(data: BytesLike) -> memoryview:
    """Return the same memory, as bytes."""
    view = memoryview(data)
    return view.cast("B") if view.nbytes else memoryview(b"")
