"""Remove checkpoints that are not needed any more, and what died half-written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spillway.checkpoints.find import chain
from spillway.checkpoints.layout import (
    CheckpointName,
    claimed_tokens,
    manifest_names,
    manifest_path,
    part_paths,
)
from spillway.checkpoints.verify import read_manifest, read_part
from spillway.errors import CorruptCheckpointError, IncompleteCheckpointError

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore


def prune(
    store: ObjectStore, prefix: str, *, keep: int, verified: CheckpointName | None = None
) -> list[CheckpointName]:
    """Keep the newest `keep` whole checkpoints, at least one; remove every other, and return which.

    Parts without a manifest are removed as well, except those of the newest lease, which may be writing them now.
    `verified` is a checkpoint that the caller has just written or read whole, so that it need not be read again.
    """
    if keep < 1:
        raise ValueError(f"cannot keep {keep} checkpoints: the newest whole one always stays")
    # Parts are listed before manifests, so a checkpoint committed meanwhile is not taken for parts without a manifest.
    parts = part_paths(store, prefix)
    newest_token = max(claimed_tokens(store, prefix), default=0)
    manifests = set(manifest_names(store, prefix))
    kept = _choose(store, prefix, keep, verified)
    removed = sorted(name for name in manifests - kept if name.token <= newest_token)
    for name in removed:  # first, so that no manifest is ever left without its parts
        store.delete(manifest_path(prefix, name))
    for name, paths in parts.items():
        if name in removed or (name not in manifests and name.token < newest_token):
            for path in paths:
                store.delete(path)
    return removed


def _choose(
    store: ObjectStore, prefix: str, keep: int, verified: CheckpointName | None
) -> set[CheckpointName]:
    """Return what stays: the newest `keep` whole ones of the chain.

    Only the first is read in full, for it is the one that must not be lost; those behind it count when their manifests do.
    """
    kept: set[CheckpointName] = set()
    whole = 0
    for name in chain(store, prefix):
        if _is_whole(store, prefix, name, read_parts=whole == 0 and name != verified):
            kept.add(name)
            whole += 1
        if whole == keep:
            break
    return kept


def _is_whole(store: ObjectStore, prefix: str, name: CheckpointName, *, read_parts: bool) -> bool:
    try:
        manifest = read_manifest(store, prefix, name)
        if read_parts:
            for part in manifest.parts:
                read_part(store, prefix, part)
    except (CorruptCheckpointError, IncompleteCheckpointError):
        return False
    return True
