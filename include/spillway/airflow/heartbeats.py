"""Heartbeats of everything that one observer watches, by one listing of each store."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from spillway.checkpoints.open import open_store
from spillway.errors import StoreError
from spillway.runtime.heartbeats import HeartbeatReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spillway.model import Heartbeat, Lease, Submission

log = logging.getLogger(__name__)


class Heartbeats:
    """Reads them again and again; keeps what it read, and fetches what has changed.

    Attributes:
        unread: Keys of the leases whose heartbeats the last reading could not get, so that nothing is known of them.
    """

    def __init__(self) -> None:
        self.unread: frozenset[str] = frozenset()
        self._readers: dict[str, HeartbeatReader] = {}

    def read(self, leases: Iterable[Lease]) -> Mapping[str, Heartbeat]:
        """Return the last heartbeat of each lease by its key. One that cannot be read now may be had at the next look."""
        by_store: defaultdict[str, list[Submission]] = defaultdict(list)
        for lease in leases:
            by_store[lease.submission.store].append(lease.submission)
        found: dict[str, Heartbeat] = {}
        unread: set[str] = set()
        for url, submissions in by_store.items():
            try:
                reader = self._reader(url)
                found.update(reader.read(submissions))
                unread |= reader.unread
            except StoreError as error:
                log.warning("no heartbeat can be read: %s", error)
                unread |= {one.key for one in submissions}
        self.unread = frozenset(unread)
        return found

    def _reader(self, url: str) -> HeartbeatReader:
        if url not in self._readers:
            self._readers[url] = HeartbeatReader(open_store(url))
        return self._readers[url]
