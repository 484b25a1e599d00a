"""What is on the disk when the power fails: what was flushed, and of all else any part. So the order of flushing is watched."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import CheckpointName, FolderStore, claim, commit, prune
from spillway.checkpoints.direct_io import LEAST_BYTES
from spillway.checkpoints.layout import claim_path, manifest_path
from spillway.errors import FencedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.checkpoints.store import BytesLike

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Disk:
    """Watches every call that changes a folder, and what would be left of it if the power failed after that call.

    Attributes:
        broken: Manifests that might have been left without all of their parts.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken: list[str] = []
        self._folder = folder
        self._flushed: set[int] = set()
        self._unsure: set[Path] = (
            set()
        )  # given or taken away since the folder they are in was flushed
        self._parts: dict[Path, list[Path]] = {}
        self._monkeypatch = monkeypatch
        self._watch("write", lambda file, _: self._flushed.discard(os.fstat(file).st_ino))
        self._watch("fsync", self._flush)
        self._watch("link", lambda _, path: self._change(path))
        self._watch("rename", self._change)
        for name in ("unlink", "mkdir", "rmdir"):
            self._watch(name, lambda path, *_: self._change(path))

    def surely_holds(self, path: Path) -> bool:
        is_named = all(name.exists() and name not in self._unsure for name in self._names(path))
        return is_named and path.stat().st_ino in self._flushed

    def surely_lacks(self, path: Path) -> bool:
        return any(not name.exists() and name not in self._unsure for name in self._names(path))

    def _names(self, path: Path) -> list[Path]:
        return [path, *(above for above in path.parents if above.is_relative_to(self._folder))]

    def _watch(self, name: str, note: Callable[..., None]) -> None:
        call = getattr(os, name)

        def watched(*arguments: object, **options: object) -> object:
            result = call(*arguments, **options)
            note(*arguments)
            self._look(name)
            return result

        self._monkeypatch.setattr(os, name, watched)

    def _flush(self, file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        self._flushed.add(os.fstat(file).st_ino)
        self._unsure = {name for name in self._unsure if name.parent != path}

    def _change(self, *paths: str | Path) -> None:
        self._unsure.update(map(Path, paths))
        for path in map(Path, paths):
            if path.parent.name == "manifests" and path.is_file():
                parts = json.loads(path.read_bytes())["parts"]
                self._parts[path] = [path.parents[1] / part["path"] for part in parts]

    def _look(self, call: str) -> None:
        for manifest, parts in self._parts.items():
            if not self.surely_lacks(manifest) and not all(map(self.surely_holds, parts)):
                self.broken.append(f"{manifest.name} after {call}")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "new", monkeypatch)


def name(step: int) -> CheckpointName:
    return CheckpointName(token=1, step=step)


def saved(folder: Path, *steps: int) -> FolderStore:
    store = FolderStore(folder)
    claim(store, "task", 1)
    for step in steps:
        parts = {"small": b"1", "large": bytes(LEAST_BYTES + 1)}
        commit(store, "task", name(step), parts, now=NOW)
    return store


def test_a_claim_and_a_checkpoint_are_durable_once_they_are_made(
    tmp_path: Path, disk: Disk
) -> None:
    folder = tmp_path / "new" / "store"
    saved(folder, 1)
    assert disk.surely_holds(folder / claim_path("task", 1))
    assert disk.surely_holds(folder / manifest_path("task", name(1)))


def test_no_manifest_is_on_the_disk_before_its_parts(tmp_path: Path, disk: Disk) -> None:
    saved(tmp_path / "new" / "store", 1, 2)
    assert disk.broken == []


def test_no_part_is_gone_from_the_disk_before_its_manifest(tmp_path: Path, disk: Disk) -> None:
    folder = tmp_path / "new" / "store"
    store = saved(folder, 1, 2, 3)
    prune(store, "task", keep=1, verified=name(3), now=NOW)
    assert disk.broken == []
    assert all(disk.surely_lacks(folder / manifest_path("task", name(step))) for step in (1, 2))


class ReplacedStore(FolderStore):
    """Another lease begins from nothing as soon as a manifest is written."""

    def create(self, path: str, data: BytesLike) -> bool:
        made = super().create(path, data)
        if "/manifests/" in path:
            claim(FolderStore(self.root), "task", 2, fresh=True)
        return made


def test_what_a_replaced_lease_takes_back_is_gone_in_the_same_order(
    tmp_path: Path, disk: Disk
) -> None:
    store = ReplacedStore(tmp_path / "new" / "store")
    claim(store, "task", 1)
    with pytest.raises(FencedError):
        commit(store, "task", name(1), {"state": b"1"}, now=NOW)
    assert disk.broken == []
    assert disk.surely_lacks(store.root / manifest_path("task", name(1)))
