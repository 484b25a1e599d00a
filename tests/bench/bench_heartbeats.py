"""What it costs to hear of 1,000 leases at once: requests to the store, and time, against reading them one by one."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from measurement import Baseline, Measurement

from spillway.checkpoints import FolderStore
from spillway.model import Heartbeat, Resources, Submission
from spillway.runtime.heartbeats import HeartbeatReader, read_heartbeat, write_heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

LEASES = 1000
CHANGED = 50
ROUND_TRIP_SECONDS = 0.005
"""What a request to a bucket of the same region takes at the least; the folder that stands in for it takes none."""


@dataclass(kw_only=True)
class FarStore:
    """A folder that is as far away as a bucket."""

    folder: FolderStore
    requests: int = field(default=0)

    def get(self, path: str) -> bytes | None:
        self._travel()
        return self.folder.get(path)

    def versions(self, prefix: str) -> dict[str, str]:
        self._travel()
        return self.folder.versions(prefix)

    def put(self, path: str, data: bytes) -> None:
        self.folder.put(path, data)

    def _travel(self) -> None:
        self.requests += 1
        time.sleep(ROUND_TRIP_SECONDS)


def run() -> list[Measurement]:
    with tempfile.TemporaryDirectory() as folder:
        store = FarStore(folder=FolderStore(Path(folder)))
        leases = [_lease(token) for token in range(1, LEASES + 1)]
        for lease in leases:
            _beat(store, lease, 1)
        reader = HeartbeatReader(store)
        one_by_one = _measure(store, lambda: [_read(store, lease) for lease in leases])
        first = _measure(store, lambda: reader.read(leases))
        for lease in leases[:CHANGED]:
            _beat(store, lease, 2)
        some = _measure(store, lambda: reader.read(leases))
        none = _measure(store, lambda: reader.read(leases))
    base = f"{LEASES:,} read one by one"
    return [
        measurement
        for name, (requests, ms) in {
            "the first time": first,
            f"{CHANGED} of them changed": some,
            "none of them changed": none,
        }.items()
        for measurement in (
            Measurement(
                name=f"requests for {LEASES:,} heartbeats, {name}",
                value=requests,
                unit="requests",
                baseline=Baseline(name=base, value=one_by_one[0]),
            ),
            Measurement(
                name=f"time for {LEASES:,} heartbeats, {name}",
                value=ms,
                unit="ms",
                baseline=Baseline(name=base, value=one_by_one[1]),
            ),
        )
    ]


def _measure(store: FarStore, read: Callable[[], object]) -> tuple[int, float]:
    before, began = store.requests, time.perf_counter()
    read()
    return store.requests - before, (time.perf_counter() - began) * 1000


def _read(store: FarStore, lease: Submission) -> Heartbeat | None:
    return read_heartbeat(store, lease.prefix, lease.token)


def _beat(store: FarStore, lease: Submission, step: int) -> None:
    beat = Heartbeat(token=lease.token, written_at=datetime.now(UTC), step=step)
    write_heartbeat(store, lease.prefix, beat)


def _lease(token: int) -> Submission:
    return Submission(
        key=f"dag/run/task/{token}/1",
        pool="here",
        token=token,
        entry_point="package.module:train",
        arguments={},
        resources=Resources(),
        store="file:///store",
        prefix=f"dag/run/task/{token}",
        grace_period=timedelta(0),
    )
