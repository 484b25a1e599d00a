"""Value tables of the policy, kept in memory and on disk by what they were made from."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final
from zipfile import BadZipFile

import numpy as np

from spillway.catalog.one_thread import one_blas_thread
from spillway.kept import Aside
from spillway.model import codec
from spillway.placement.value_table import PROGRAMME_VERSION, ValueTable, build_table

if TYPE_CHECKING:
    from spillway.placement.availability import AvailabilityModel
    from spillway.placement.value_table import TableSpec


log = logging.getLogger(__name__)

_MAKING_AT_ONCE: Final = 8
"""How many tables may be on their way; those asked for beyond that are asked for again."""


def one_after_another() -> Aside:
    """Return what runs calls in a thread of its own, each after the one before."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spillway-aside").submit


@dataclass
class ValueTables:
    """A cache of value tables; safe to share between threads.

    A table not known yet takes seconds of CPU to build. `get` waits for that, so ask it where waiting does no harm, such as
    when a task is placed; `at_hand` does not wait.

    Attributes:
        folder: Where tables are kept between processes; None keeps them in memory only. A folder that cannot be written
            costs time, not correctness.
        memory_bytes: Most memory the tables may take; the one used longest ago goes first.
        files: Most tables kept on disk.
        aside: Runs a call beside whatever asks `at_hand`.
    """

    folder: Path | None = None
    memory_bytes: int = 256 * 2**20
    files: int = 64
    aside: Aside = field(default_factory=one_after_another)
    _tables: OrderedDict[str, ValueTable] = field(default_factory=OrderedDict)
    _made_aside: set[str] = field(default_factory=set[str])
    _lock: Lock = field(default_factory=Lock)
    _making: Lock = field(default_factory=Lock)

    def get(self, spec: TableSpec, model: AvailabilityModel) -> ValueTable:
        """Return the table of `spec` under `model`: from memory, from disk, or built now."""
        key = content_key(spec, model)
        table = self._in_memory(key)
        if table is None:
            with self._making:  # whoever asked for the same one meanwhile finds it
                table = self._in_memory(key) or self._make(key, spec, model)
        return table

    def at_hand(self, spec: TableSpec, model: AvailabilityModel) -> ValueTable | None:
        """Return the table if it is in memory; None until it was made aside, which asking for it begins.

        Takes no time: neither a file is read nor a lock waited for that is held while a table is built.
        """
        key = content_key(spec, model)
        if self._in_memory(key) is None:
            self._begin(key, spec, model)
        return self._in_memory(key)

    def _begin(self, key: str, spec: TableSpec, model: AvailabilityModel) -> None:
        with self._lock:
            if key in self._made_aside or len(self._made_aside) >= _MAKING_AT_ONCE:
                return
            self._made_aside.add(key)
        self.aside(lambda: self._make_aside(key, spec, model))

    def _make_aside(self, key: str, spec: TableSpec, model: AvailabilityModel) -> None:
        try:
            self.get(spec, model)
        except Exception:  # at the top of its thread: nobody else would ever hear of it
            log.exception("a value table could not be made: %s", spec)
            raise
        finally:
            with self._lock:
                self._made_aside.discard(key)

    def _in_memory(self, key: str) -> ValueTable | None:
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
        return table

    def _make(self, key: str, spec: TableSpec, model: AvailabilityModel) -> ValueTable:
        table = self._load(key, spec)
        if table is None:
            with one_blas_thread():
                table = build_table(spec, model)
            self._save(key, table)
        with self._lock:
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
