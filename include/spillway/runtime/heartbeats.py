"""Where heartbeats are, and reading those of many leases at once.

```
.heartbeats/{token}-{task}.json        of each lease at work, all in one folder: one listing tells which have changed
{prefix}/heartbeats/{token}.json       the last words of a lease that is over, beside its task's checkpoints
```

A lease writes no path of another's, so an older one never overwrites what a newer one said. A beat that hung in the store may
arrive after the last words: it is older than they are, and does not count. The first folder holds no more than what is at work, so
that listing it stays cheap however long the history gets.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import xxhash

from spillway.checkpoints.store import SupportsVersions
from spillway.errors import SpecError, StoreError
from spillway.model import Heartbeat
from spillway.model.codec import decode_json, encode_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from spillway.checkpoints.store import ObjectStore
    from spillway.model import Submission

log = logging.getLogger(__name__)

AT_WORK: Final = ".heartbeats"
_AT_ONCE: Final = 16


def write_heartbeat(store: ObjectStore, prefix: str, heartbeat: Heartbeat) -> None:
    """Write the heartbeat in place of the lease's last one."""
    store.put(_live_path(prefix, heartbeat.token), encode_json(heartbeat))


def end_heartbeat(store: ObjectStore, prefix: str, heartbeat: Heartbeat) -> None:
    """Write the last heartbeat of a lease, which is at work no more."""
    store.put(_last_path(prefix, heartbeat.token), encode_json(heartbeat))
    store.delete(_live_path(prefix, heartbeat.token))


def retire_heartbeat(store: ObjectStore, prefix: str, token: int) -> None:
    """Keep what lease `token` said last, for a job that could not end its heartbeat itself. Repeats safely."""
    live = _live_path(prefix, token)
    data = store.get(live)
    if data is not None:
        store.create(_last_path(prefix, token), data)
        store.delete(live)


def read_heartbeat(store: ObjectStore, prefix: str, token: int) -> Heartbeat | None:
    """Return the last heartbeat of lease `token`, or None when there is none yet.

    Raises:
        StoreError: The store could not be read, or holds something else there.
    """
    # The last one is written before the live one goes: whoever finds neither may have looked in between. And a live one
    # that is found beside it has hung in the store.
    last, live = _last_path(prefix, token), _live_path(prefix, token)
    for path in (last, live, last):
        data = store.get(path)
        if data is not None:
            return _decode(path, data)
    return None


class HeartbeatReader:
    """Reads the heartbeats of many leases: one listing, then only what has changed since the last time.

    Attributes:
        unread: Keys of the leases whose heartbeats the last reading could not get, so that nothing is known of them.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: dict[str, tuple[str, Heartbeat]] = {}
        self.unread: frozenset[str] = frozenset()

    def read(self, submissions: Iterable[Submission]) -> Mapping[str, Heartbeat]:
        """Return the last heartbeat of each lease by its key; one that has none yet, or an unreadable one, is left out.

        Raises:
            StoreError: The store could not be read.
        """
        asked = {_live_path(one.prefix, one.token): one for one in submissions}
        versions = self._versions() if asked else {}
        changed = [path for path in asked if self._has_changed(path, versions.get(path))]
        self._kept = {path: kept for path, kept in self._kept.items() if path in asked}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = {
                path: pool.submit(self._fetch, path, asked[path], is_at_work=path in versions)
                for path in changed
            }
        unread: set[str] = set()
        for path, fetched in found.items():
            try:
                heartbeat = fetched.result()
            except StoreError as error:
                log.warning("the heartbeat of %s cannot be read: %s", asked[path].key, error)
                unread.add(asked[path].key)
                continue
            if heartbeat is not None:
                self._keep(path, versions.get(path, ""), heartbeat)
        self.unread = frozenset(unread)
        return {asked[path].key: heartbeat for path, (_, heartbeat) in self._kept.items()}

    def _versions(self) -> Mapping[str, str]:
        if isinstance(self._store, SupportsVersions):
            return self._store.versions(AT_WORK)
        return {}  # then each is fetched each time

    def _has_changed(self, path: str, version: str | None) -> bool:
        """Whether to fetch. What is not at work has begun nothing yet, or has said its last words, which are final."""
        kept = self._kept.get(path)
        if kept is None or not isinstance(self._store, SupportsVersions):
            return True
        return kept[0] != (version or "")

    def _keep(self, path: str, version: str, heartbeat: Heartbeat) -> None:
        """Keep the newer of what was known and what was read: a beat that hung in the store may come after the last words."""
        known = self._kept.get(path)
        if known is not None and known[1].written_at > heartbeat.written_at:
            heartbeat = known[1]
        self._kept[path] = version, heartbeat

    def _fetch(self, path: str, one: Submission, *, is_at_work: bool) -> Heartbeat | None:
        # What was at work a moment ago hardly has last words: not asking for them halves the requests.
        data = self._store.get(path) if is_at_work and path in self._kept else None
        if data is not None:
            return _decode(path, data)
        return read_heartbeat(self._store, one.prefix, one.token)


def _live_path(prefix: str, token: int) -> str:
    # Two deployments may share a store, and each counts its own tokens.
    return f"{AT_WORK}/{token:012d}-{xxhash.xxh3_64_hexdigest(prefix.encode())}.json"


def _last_path(prefix: str, token: int) -> str:
    return f"{prefix}/heartbeats/{token:012d}.json"


def _decode(path: str, data: bytes) -> Heartbeat:
    try:
        return decode_json(data, Heartbeat)
    except SpecError as error:
        raise StoreError(f"{path} is not what a job wrote: {error}") from error
