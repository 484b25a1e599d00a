"""Begin a lease in the store, and commit its checkpoints.

The order of writes is what makes it safe. A checkpoint's parts come first and its manifest last, so a writer that dies
leaves either a checkpoint or nothing that counts. A lease writes its claim before anything else, and from then on no
checkpoint of an earlier lease counts except those up to the one the claim names. The writer looks for a newer claim before
and after its manifest too, so that a replaced lease learns of it and stops; that nothing of it counts does not rest on
that look.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from spillway.checkpoints.checksums import KnownChecksums, checksum
from spillway.checkpoints.find import Found, chain, latest
from spillway.checkpoints.layout import (
    CheckpointName,
    claim_path,
    claimed_tokens,
    manifest_path,
    part_path,
    remove_manifests,
)
from spillway.checkpoints.readers import beginning
from spillway.checkpoints.sealing import seal
from spillway.checkpoints.verify import Claim, read_claim, read_manifest, read_part
from spillway.errors import (
    CorruptCheckpointError,
    FencedError,
    IncompleteCheckpointError,
    SpecError,
    StoreError,
)
from spillway.model import Manifest, Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from pydantic import JsonValue

    from spillway.checkpoints.store import BytesLike, ObjectStore

Parts: TypeAlias = "Mapping[str, BytesLike]"
"""What a checkpoint is made of; each part is asked for once, when its turn to be written has come."""


def claim(store: ObjectStore, prefix: str, token: int, *, fresh: bool = False) -> Found | None:
    """Begin lease `token` and return the checkpoint it begins from; from now on earlier leases cannot commit.

    Safe to repeat: a lease that has begun goes on from the newest whole checkpoint, its own included. A `fresh` lease
    begins from nothing, whatever earlier ones saved.

    Raises:
        FencedError: A newer lease has begun already.
        StoreError: The store could not be read or written.
    """
    _check_fence(store, prefix, token)
    begun = _has_begun(store, prefix, token)
    with beginning(store, prefix, token):
        found = None if fresh and not begun else latest(store, prefix)
        if not begun:
            base = str(found.name) if found else None
            store.create(claim_path(prefix, token), seal(Claim(token=token, base=base)))
            _check_fence(store, prefix, token)
    return found


def commit(  # noqa: PLR0913  # half of them are facts to remember, each by its name
    store: ObjectStore,
    prefix: str,
    name: CheckpointName,
    parts: Parts,
    *,
    now: datetime,
    metadata: Mapping[str, JsonValue] | None = None,
    metrics: Mapping[str, float] | None = None,
    entry_point: str = "",
    checksums: KnownChecksums | None = None,
) -> Manifest:
    """Save a checkpoint of a lease that has begun; it exists once this returns, and not in part before.

    A step that the lease has saved already is not saved again. `checksums` are those of parts where they are known.

    Raises:
        FencedError: A newer lease has begun; stop. What was saved counts only if that lease began from it.
        SpecError: A part could not be had.
        StoreError: The store could not be written, and what was written of the checkpoint has been removed if possible.
    """
    _check_fence(store, prefix, name.token)
    saved = _saved_before(store, prefix, name)
    if saved is not None:
        return saved
    writer = uuid.uuid4().hex
    known: KnownChecksums = {} if checksums is None else checksums
    try:
        manifest = Manifest(
            token=name.token,
            step=name.step,
            created_at=now,
            parts=tuple(
                Part(
                    name=part,
                    path=path,
                    size=memoryview(data).nbytes,
                    checksum=known.get(part) or checksum(data),
                )
                for part, path, data in _write_parts(store, prefix, name, writer, parts)
            ),
            metadata=dict(metadata or {}),
            metrics=dict(metrics or {}),
            entry_point=entry_point,
        )
        _check_fence(store, prefix, name.token)
        _create_manifest(store, manifest_path(prefix, name), seal(manifest))
        _check_fence(store, prefix, name.token)
    except (FencedError, SpecError, StoreError):
        with suppress(StoreError):  # the first error is the one to report
            _discard(store, prefix, name, [part_path(name, writer, part) for part in parts])
        raise
    return manifest


def _check_fence(store: ObjectStore, prefix: str, token: int) -> None:
    newest = max(claimed_tokens(store, prefix), default=token)
    if newest > token:
        raise FencedError(token=token, newest=newest)


def _has_begun(store: ObjectStore, prefix: str, token: int) -> bool:
    try:
        return read_claim(store, prefix, token) is not None
    except CorruptCheckpointError:
        return True


def _saved_before(store: ObjectStore, prefix: str, name: CheckpointName) -> Manifest | None:
    """Return the checkpoint if it is there and whole; remove the manifest of one that is not."""
    try:
        manifest = read_manifest(store, prefix, name)
        for part in manifest.parts:
            read_part(store, prefix, part)
    except (CorruptCheckpointError, IncompleteCheckpointError):
        remove_manifests(store, prefix, [name])
        return None
    return manifest


def _write_parts(
    store: ObjectStore, prefix: str, name: CheckpointName, writer: str, parts: Parts
) -> Iterator[tuple[str, str, BytesLike]]:
    """Write one part after the other, and yield its name, its path and, until the next, its bytes."""
    for part in parts:
        path, data = part_path(name, writer, part), parts[part]
        store.put(f"{prefix}/{path}", data)
        yield part, path, data


def _create_manifest(store: ObjectStore, path: str, data: bytes) -> None:
    # A store that was asked twice, because its first answer was lost, finds what we wrote ourselves.
    if not store.create(path, data) and store.get(path) != data:
        raise StoreError(f"{path} was written by somebody else: two processes run the same lease")


def _discard(store: ObjectStore, prefix: str, name: CheckpointName, paths: Sequence[str]) -> None:
    """Remove what was written, unless it counts: the lease that came after may have begun from it."""
    if name in chain(store, prefix):
        return
    remove_manifests(store, prefix, [name])
    for path in paths:
        store.delete(f"{prefix}/{path}")
