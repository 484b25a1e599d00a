"""Read claims, manifests and parts, and trust none that is not what was written."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from spillway.checkpoints.checksums import matches
from spillway.checkpoints.files import INDEX, PIECES
from spillway.checkpoints.layout import CheckpointName, claim_path, manifest_path
from spillway.checkpoints.sealing import unseal
from spillway.errors import CorruptCheckpointError, IncompleteCheckpointError, SpecError
from spillway.model import Manifest, Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance

    from spillway.checkpoints.store import ObjectStore

log = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A lease has begun.

    Attributes:
        token: Its fencing token.
        base: Name of the checkpoint it began from; None when it began from nothing.
    """

    token: int
    base: str | None = None


def read_claim(store: ObjectStore, prefix: str, token: int) -> Claim | None:
    """Return the claim of lease `token`, or None when it has not begun.

    Raises:
        CorruptCheckpointError: It is not what was written.
    """
    path = claim_path(prefix, token)

    def check(data: bytes) -> Claim:
        claim = _decode(path, data, Claim)
        if claim.token != token or not _is_before(claim.base, token):
            raise CorruptCheckpointError(f"{path} is the claim of another lease")
        return claim

    return _read(store, path, check)


def read_manifest(store: ObjectStore, prefix: str, name: CheckpointName) -> Manifest:
    """Return the manifest.

    Raises:
        IncompleteCheckpointError: There is none.
        CorruptCheckpointError: It is not what was written.
    """
    path = manifest_path(prefix, name)

    def check(data: bytes) -> Manifest:
        manifest = _decode(path, data, Manifest)
        if (manifest.token, manifest.step) != (name.token, name.step):
            raise CorruptCheckpointError(f"{path} is the manifest of another checkpoint")
        return manifest

    return _must_be_there(path, _read(store, path, check))


class VerifiedParts(Mapping[str, bytes]):
    """The parts of a whole checkpoint by their names; those in `large` are read and verified again each time."""

    def __init__(
        self, store: ObjectStore, prefix: str, held: Mapping[str, bytes], large: Mapping[str, Part]
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._held = held
        self._large = large

    def __getitem__(self, name: str) -> bytes:
        """Return the bytes of a part; for a large one it raises what `read_part` does."""
        if name in self._large:
            return read_part(self._store, self._prefix, self._large[name])
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._held
        yield from self._large

    def __len__(self) -> int:
        return len(self._held) + len(self._large)

    @property
    def is_read_later(self) -> bool:
        """Whether some of it is read only when it is asked for."""
        return bool(self._large)

    def files(self) -> VerifiedParts:
        """Return the parts that files are made of, so that the memory of all others can go."""
        held = {name: data for name, data in self._held.items() if name == INDEX}
        return VerifiedParts(self._store, self._prefix, held, self._large)


def read_parts(store: ObjectStore, prefix: str, manifest: Manifest) -> VerifiedParts:
    """Read every part, and hold all but pieces of files, which may be more than the memory.

    Raises:
        IncompleteCheckpointError: One is missing.
        CorruptCheckpointError: One is not what was written.
    """
    held: dict[str, bytes] = {}
    large: dict[str, Part] = {}
    for part in manifest.parts:
        data = read_part(store, prefix, part)
        if part.name.startswith(PIECES):
            large[part.name] = part
        else:
            held[part.name] = data
    return VerifiedParts(store, prefix, held, large)


def read_part(store: ObjectStore, prefix: str, part: Part) -> bytes:
    """Return the bytes of a part.

    Raises:
        IncompleteCheckpointError: It is missing.
        CorruptCheckpointError: It is not what was written.
    """
    path = f"{prefix}/{part.path}"

    def check(data: bytes) -> bytes:
        if len(data) != part.size:
            raise CorruptCheckpointError(f"{path} has {len(data)} bytes instead of {part.size}")
        try:
            is_whole = matches(data, part.checksum)
        except KeyError as unknown:
            raise CorruptCheckpointError(
                f"{path} has a checksum by {unknown}, which this version does not know"
            ) from unknown
        if not is_whole:
            raise CorruptCheckpointError(f"{path} is not what was written: its checksum differs")
        return data

    return _must_be_there(path, _read(store, path, check))


def _read(store: ObjectStore, path: str, check: Callable[[bytes], R]) -> R | None:
    """Return what `check` makes of an object, or None; one that is found damaged may only have been so on its way."""
    try:
        return _read_once(store, path, check)
    except CorruptCheckpointError as error:
        log.warning("reading it again: %s", error)
    return _read_once(store, path, check)  # out here, so that the memory of the first is free


def _read_once(store: ObjectStore, path: str, check: Callable[[bytes], R]) -> R | None:
    data = store.get(path)
    return None if data is None else check(data)


def _must_be_there(path: str, found: R | None) -> R:
    if found is None:
        raise IncompleteCheckpointError(f"{path} is missing")
    return found


def _is_before(base: str | None, token: int) -> bool:
    if base is None:
        return True
    name = CheckpointName.parse(base)
    return name is not None and name.token < token


def _decode(path: str, data: bytes, kind: type[T]) -> T:
    try:
        return unseal(data, kind)
    except SpecError as error:
        raise CorruptCheckpointError(f"{path} is not what was written: {error}") from error
