"""Remove checkpoints that are not needed any more, and what died half-written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from spillway.checkpoints.find import chain
from spillway.checkpoints.layout import (
    CheckpointName,
    claimed_tokens,
    manifest_names,
    manifest_path,
    part_paths,
    remove_manifests,
)
from spillway.checkpoints.readers import marks
from spillway.checkpoints.retention import Verdict, judge, name_of
from spillway.checkpoints.verify import read_manifest, read_part
from spillway.errors import CorruptCheckpointError, IncompleteCheckpointError, SpecError
from spillway.model import Manifest, Retention
from spillway.model.codec import decode_json, encode_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spillway.checkpoints.store import ObjectStore

log = logging.getLogger(__name__)

STRAY_AGE: Final = timedelta(days=1)
"""How long parts without a manifest are left alone while the lease that wrote them may be at it still, and how long
what seems to be damaged, because it may be the way to the store that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a pruning did.

    Attributes:
        removed: Checkpoints that are no more, oldest first; those that did not count or were not whole included.
        verdicts: What became of each whole one that counts, newest first.
        stored_bytes: What the kept ones take in the store.
    """

    removed: tuple[CheckpointName, ...]
    verdicts: tuple[Verdict, ...]
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Strays:
    """Parts without a manifest of a lease that may be writing them, and damaged manifests: when each was first seen so."""

    seen: Mapping[str, datetime] = field(default_factory=dict[str, datetime])


def prune(
    store: ObjectStore,
    prefix: str,
    *,
    keep: Retention | int,
    verified: CheckpointName | None = None,
    now: datetime | None = None,
) -> Pruned:
    """Keep the checkpoints that `keep` asks for, a number being so many of the newest; remove every other.

    Never removed: the newest whole one, which is what the next lease builds on, and what a reader holds; nothing at all is
    where none that counts is whole. Parts without a
    manifest are removed at once where the lease that wrote them has been replaced, and else after `STRAY_AGE`; one that
    counts and is found damaged is too. Safe to repeat, and to do from several processes.

    Args:
        store: Where they are.
        prefix: The task's.
        keep: The rule.
        verified: A checkpoint that the caller has just written or read whole, so that it need not be read again.
        now: Without it no reader's mark is over by time, and nothing is old enough to be removed for its age.

    Raises:
        StoreError: The store could not be read or written; nothing that is needed is gone.
        SpecError: The rule would keep nothing.
    """
    rule = Retention(last=keep) if isinstance(keep, int) else keep
    # In this order: parts before manifests, so that what is committed meanwhile is not taken for parts without a manifest;
    # marks before what counts, for the reason that `readers` gives.
    parts = part_paths(store, prefix)
    held_by = marks(store, prefix, now=now)
    newest_token = max(claimed_tokens(store, prefix), default=0)
    names = set(manifest_names(store, prefix))
    held = {name: f"held by {mark.by}" for name in names for mark in held_by if mark.holds(name)}
    whole, damaged = _examine(store, prefix, names, verified)
    if not whole:  # then what does not count may be all there is
        return Pruned(removed=(), verdicts=(), stored_bytes=0)
    # The newest by step is another where a lease began at step 0 again.
    held.setdefault(name_of(whole[0]), "what the next lease begins from")
    verdicts = judge(whole, rule, held=held)
    unlisted = {name for name in parts.keys() - names if _exists(store, prefix, name)}
    strays = _strays(prefix, parts, names | unlisted, whole)
    dead = {path for path, name in strays.items() if name.token < newest_token}
    unsure = {manifest_path(prefix, name): name for name in damaged}
    aged = _aged(store, prefix, [*(path for path in strays if path not in dead), *unsure], now)
    kept = {verdict.name for verdict in verdicts if verdict.is_kept} | held.keys()
    kept |= {name for path, name in unsure.items() if path not in aged}
    removed = sorted(name for name in names - kept if name.token <= newest_token)
    remove_manifests(store, prefix, removed)  # first, so that none is ever left without its parts
    held_by = marks(store, prefix, now=now)  # whoever reads what was just removed may finish
    doomed = {path: name for name in removed for path in parts.get(name, ())}
    doomed |= {path: name for path, name in strays.items() if path in dead | aged}
    for path, name in doomed.items():
        if not any(mark.holds(name) for mark in held_by):
            store.delete(path)
    return Pruned(
        removed=tuple(removed),
        verdicts=verdicts,
        stored_bytes=sum(each.size for each in whole if name_of(each) in kept),
    )


def _exists(store: ObjectStore, prefix: str, name: CheckpointName) -> bool:
    """Whether there is a manifest that a listing may only have been too late for."""
    return store.get(manifest_path(prefix, name)) is not None


def _examine(
    store: ObjectStore, prefix: str, names: set[CheckpointName], verified: CheckpointName | None
) -> tuple[list[Manifest], list[CheckpointName]]:
    """Return the manifests of the whole checkpoints that count, newest first, and the names of the damaged ones.

    Only the first is read in full, for it is the one that must not be lost; those behind it count when their manifests do.
    """
    whole: list[Manifest] = []
    damaged: list[CheckpointName] = []
    for name in chain(store, prefix):
        if name not in names:
            continue
        try:
            manifest = read_manifest(store, prefix, name)
            for part in manifest.parts if not whole and name != verified else ():
                read_part(store, prefix, part)
        except (CorruptCheckpointError, IncompleteCheckpointError) as error:
            log.warning("the checkpoint of step %d is not whole: %s", name.step, error)
            damaged.append(name)
            continue
        whole.append(manifest)
    return whole, damaged


def _strays(
    prefix: str,
    parts: Mapping[CheckpointName, Sequence[str]],
    names: set[CheckpointName],
    whole: Iterable[Manifest],
) -> dict[str, CheckpointName]:
    """Return the parts that belong to no manifest, each with the checkpoint it was written for."""
    named = {name_of(one): {f"{prefix}/{part.path}" for part in one.parts} for one in whole}
    return {
        path: name
        for name, paths in parts.items()
        for path in paths
        if name not in names or path not in named.get(name, paths)
    }


def _aged(store: ObjectStore, prefix: str, strays: Sequence[str], now: datetime | None) -> set[str]:
    """Return those that have been so for long, by notes kept beside them: a store's own times differ."""
    path = f"{prefix}/strays.json"
    if now is None or not (strays or store.get(path)):
        return set()
    before = _read_notes(store, path)
    seen = {stray: before.get(stray, now) for stray in strays}
    aged = {stray for stray in strays if now - seen[stray] >= STRAY_AGE}
    left = {stray: at for stray, at in seen.items() if stray not in aged}
    if left != before:
        store.put(path, encode_json(Strays(seen=left)))
    return aged


def _read_notes(store: ObjectStore, path: str) -> Mapping[str, datetime]:
    data = store.get(path)
    if data is None:
        return {}
    try:
        return decode_json(data, Strays).seen
    except SpecError:  # they are noted anew
        return {}
