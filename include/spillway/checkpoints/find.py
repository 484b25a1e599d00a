"""Find the newest whole checkpoint of a task, and verify it by reading it.

Which checkpoints count follows from the claims alone: those of the newest lease, then the one it began from and what is
before that in the same lease, then the one *that* lease began from, and so on. What a replaced lease wrote after it was
replaced is on no such chain, so it is not seen, whatever clocks say and in whatever order a store lists.

With one exception: where nothing on the chain is whole any more, what replaced leases wrote stands in. For one whose
listings lag does not know that it is replaced, and removes old checkpoints as ever: perhaps the very one that the lease
after it began from. It leaves its own newest, and a state that has been replaced is worth more than none.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spillway.checkpoints.layout import CheckpointName, claimed_tokens, manifest_names
from spillway.checkpoints.verify import VerifiedParts, read_claim, read_manifest, read_parts
from spillway.errors import CorruptCheckpointError, IncompleteCheckpointError
from spillway.model import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spillway.checkpoints.store import ObjectStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A checkpoint that counts and is not whole, and why."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A whole checkpoint.

    Attributes:
        parts: The verified bytes of each part, by its name.
        skipped: Newer ones that are not whole, newest first.
    """

    manifest: Manifest
    parts: VerifiedParts
    skipped: tuple[Skipped, ...] = ()

    @property
    def name(self) -> CheckpointName:
        """Which lease saved it, and at which step."""
        return CheckpointName(token=self.manifest.token, step=self.manifest.step)


def latest(store: ObjectStore, prefix: str) -> Found | None:
    """Return the newest whole checkpoint that counts, else the newest whole one that stands in for those, or None.

    One that is not whole is passed over, with a warning that says how many steps that loses.

    Raises:
        StoreError: The store could not be read; that says nothing of its checkpoints.
    """
    skipped: list[Skipped] = []
    for name in _candidates(store, prefix):
        try:
            manifest = read_manifest(store, prefix, name)
            parts = read_parts(store, prefix, manifest)
        except (CorruptCheckpointError, IncompleteCheckpointError) as error:
            skipped.append(Skipped(step=name.step, reason=str(error)))
            continue
        _warn(prefix, skipped, name.step)
        return Found(manifest=manifest, parts=parts, skipped=tuple(skipped))
    _warn(prefix, skipped, None)
    return None


def chain(store: ObjectStore, prefix: str) -> Iterator[CheckpointName]:
    """Yield the names of the checkpoints that count, newest first, whether they are whole or not."""
    tokens = claimed_tokens(store, prefix)
    names = manifest_names(store, prefix)
    token, below = (tokens[-1] if tokens else None), None
    while token is not None:
        yield from _of_lease(names, token, below)
        base = _base(store, prefix, token, names)
        if base is None:
            return
        yield base
        token, below = base.token, base.step


def _candidates(store: ObjectStore, prefix: str) -> Iterator[CheckpointName]:
    """Yield what counts and then what stands in for it: all else that was saved since a lease began from nothing."""
    counting: list[CheckpointName] = []
    for name in chain(store, prefix):
        counting.append(name)
        yield name
    oldest = min((name.token for name in counting), default=None)
    for name in reversed(manifest_names(store, prefix)):
        if oldest is not None and name.token >= oldest and name not in counting:
            log.warning("trying what lease %d of %s saved though replaced", name.token, prefix)
            yield name


def _of_lease(
    names: Sequence[CheckpointName], token: int, below: int | None
) -> Iterator[CheckpointName]:
    for name in reversed(names):
        if name.token == token and (below is None or name.step < below):
            yield name


def _base(
    store: ObjectStore, prefix: str, token: int, names: Sequence[CheckpointName]
) -> CheckpointName | None:
    """Return the checkpoint that lease `token` began from.

    A claim that is lost or damaged cannot say; then the newest one of an earlier lease stands in for it, because a state
    that may have been replaced is worth more than none.
    """
    try:
        claim = read_claim(store, prefix, token)
    except CorruptCheckpointError as error:
        log.warning("cannot tell what lease %d began from: %s", token, error)
        claim = None
    if claim is not None:
        return CheckpointName.parse(claim.base) if claim.base is not None else None
    return max((name for name in names if name.token < token), default=None)


def _warn(prefix: str, skipped: Sequence[Skipped], step: int | None) -> None:
    if not skipped:
        return
    for one in skipped:
        log.warning("checkpoint of step %d of %s is not whole: %s", one.step, prefix, one.reason)
    if step is None:
        log.warning(
            "no older checkpoint of %s is whole: all %d steps are lost", prefix, skipped[0].step
        )
    else:
        lost = max(skipped[0].step - step, 0)
        log.warning("going back to the checkpoint of step %d: %d steps are lost", step, lost)
