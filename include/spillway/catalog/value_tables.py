"""Value tables of the policy, kept in memory and on disk by what they were made from."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from spillway.catalog.one_thread import one_blas_thread
from spillway.model import codec
from spillway.placement.value_table import PROGRAMME_VERSION, ValueTable, build_table

if TYPE_CHECKING:
    from spillway.placement.availability import AvailabilityModel
    from spillway.placement.value_table import TableSpec


@dataclass
class ValueTables:
    """A cache of value tables; safe to share between threads.

    A table not known yet takes seconds of CPU to build, so ask for it where waiting does no harm, such as when a task is
    placed, and not inside an event loop.

    Attributes:
        folder: Where tables are kept between processes; None keeps them in memory only. A folder that cannot be written
            costs time, not correctness.
        memory_bytes: Most memory the tables may take; the one used longest ago goes first.
        files: Most tables kept on disk.
    """

    folder: Path | None = None
    memory_bytes: int = 256 * 2**20
    files: int = 64
    _tables: OrderedDict[str, ValueTable] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, spec: TableSpec, model: AvailabilityModel) -> ValueTable:
        """Return the table of `spec` under `model`: from memory, from disk, or built now."""
        key = content_key(spec, model)
        with self._lock:
            table = self._tables.pop(key, None) or self._load(key, spec)
            if table is None:
                with one_blas_thread():
                    table = build_table(spec, model)
                self._save(key, table)
            self._tables[key] = table
            while len(self._tables) > 1 and self._used() > self.memory_bytes:
                self._tables.popitem(last=False)
        return table

    def _used(self) -> int:
        return sum(table.nbytes for table in self._tables.values())

    def _load(self, key: str, spec: TableSpec) -> ValueTable | None:
        if self.folder is None:
            return None
        path = self.folder / f"{key}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in ("idle", "steady", "spot")}
            path.touch()
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None
        return ValueTable(spec=spec, **arrays)

    def _save(self, key: str, table: ValueTable) -> None:
        """Write the table beside its place and move it there, so that no reader sees half of one."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
            with os.fdopen(handle, "wb") as part:
                np.savez(part, idle=table.idle, steady=table.steady, spot=table.spot)
            Path(name).replace(self.folder / f"{key}.npz")
            self._prune(self.folder)
        except OSError:
            return

    def _prune(self, folder: Path) -> None:
        newest_last = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        for path in newest_last[: -self.files]:
            path.unlink(missing_ok=True)


@lru_cache(maxsize=256)
def content_key(spec: TableSpec, model: AvailabilityModel) -> str:
    """Return the name of a table: equal for equal contents, in every process."""
    digest = hashlib.sha256(f"{PROGRAMME_VERSION}".encode())
    digest.update(codec.encode_json(spec))
    digest.update(codec.encode_json(model))
    return digest.hexdigest()[:32]
