"""An Optuna journal in an object store: what any number of processes, on any pools, share of a study.

A record is an object of its own, named by its place in the journal and only ever created, so of two processes that write at
the same moment one is refused, reads what it had not seen, and writes behind it. Nobody locks, nothing is ever written
over, and a journal has no gaps. Whoever completes a page of records writes the page too, as one object with the same records:
for those who begin to read later, and are spared a request for each record. A page that was never written is not missed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from optuna.storages.journal import BaseJournalBackend
from typing_extensions import override

from spillway.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.checkpoints import ObjectStore

PAGE_RECORDS: Final = 50


class StoreJournal(BaseJournalBackend):
    """The records of one study, below `folder` of a store. For one storage: several need a journal each."""

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store = store
        self._folder = folder
        self._seen: list[dict[str, Any]] = []

    @override
    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the records from that place on, those that others wrote meanwhile included.

        Raises:
            StoreError: The store could not be read, or something else is in the folder.
        """
        self._catch_up()
        return self._seen[log_number_from:]

    @override
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append the records in their order, each whole or not at all; durable when this returns.

        Raises:
            StoreError: The store could not be read or written.
        """
        for log in logs:
            self._append(json.dumps(log).encode())

    def _append(self, record: bytes) -> None:
        self._catch_up()
        while not self._store.create(self._record_path(len(self._seen)), record):
            self._catch_up()
        self._seen.append(json.loads(record))
        if len(self._seen) % PAGE_RECORDS == 0:
            page = self._seen[-PAGE_RECORDS:]
            self._store.put(
                self._page_path(len(self._seen) // PAGE_RECORDS - 1), json.dumps(page).encode()
            )

    def _catch_up(self) -> None:
        while following := self._read_page() or self._read_record():
            self._seen += following

    def _read_page(self) -> list[dict[str, Any]]:
        page, place = divmod(len(self._seen), PAGE_RECORDS)
        return [] if place else self._read(self._page_path(page))

    def _read_record(self) -> list[dict[str, Any]]:
        record = self._read(self._record_path(len(self._seen)))
        return [record] if record else []

    def _read(self, path: str) -> Any:
        data = self._store.get(path)
        try:
            return None if data is None else json.loads(data)
        except ValueError as error:
            raise StoreError(
                f"{path} in {self._store} is no part of a study's journal: give the sweep a folder of its own"
            ) from error

    def _record_path(self, number: int) -> str:
        return f"{self._folder}/records/{number:08d}.json"

    def _page_path(self, number: int) -> str:
        return f"{self._folder}/pages/{number:06d}.json"
