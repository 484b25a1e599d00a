"""How much a task's checkpoints take in the store, and for how long: what its heartbeats say, and storage is charged by."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from spillway.model import Heartbeat


def note_stored(before: Heartbeat, stored_bytes: int, *, now: datetime) -> Heartbeat:
    """Return the heartbeat once checkpoints take `stored_bytes`: what they took until now is added up."""
    hours = 0.0
    if before.stored_since is not None and before.stored_gib is not None:
        hours = max((now - before.stored_since).total_seconds() / 3600 * before.stored_gib, 0.0)
    return replace(
        before,
        stored_gib=stored_bytes / 2**30,
        stored_since=now,
        stored_from=before.stored_from or now,
        stored_gib_hours=before.stored_gib_hours + hours,
    )


def stretches(said: Heartbeat) -> Iterator[tuple[datetime, float]]:
    """Yield since when the lease stored how many GiB: the mean until the last change, then what there is since.

    Their sum over time is exact; how the mean came about is not told.
    """
    if said.stored_gib is None or said.stored_since is None:
        return
    began = said.stored_from or said.stored_since
    hours = (said.stored_since - began).total_seconds() / 3600
    if hours > 0:
        yield began, said.stored_gib_hours / hours
    yield said.stored_since, said.stored_gib
