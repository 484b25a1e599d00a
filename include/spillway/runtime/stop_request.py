"""Asking a job, through the store, to save and stop: how a lease is moved without reaching its machine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from spillway.errors import SpecError, StoreError
from spillway.model.codec import decode_json, encode_json

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequest:
    """What a job is asked: to save what it has, and to exit as when its capacity is taken back.

    Attributes:
        token: Lease that is asked; no other obeys.
        stop_by: When it will be stopped anyway.
    """

    token: int
    reason: str
    asked_at: datetime
    stop_by: datetime


def ask_to_stop(store: ObjectStore, prefix: str, request: StopRequest) -> None:
    """Ask the lease's job to stop; asking again changes only the reason and the time."""
    store.put(_path(prefix, request.token), encode_json(request))


def read_stop_request(store: ObjectStore, prefix: str, token: int) -> StopRequest | None:
    """Return what lease `token` was asked, or None.

    Raises:
        StoreError: The store could not be read, or holds something else there.
    """
    path = _path(prefix, token)
    data = store.get(path)
    if data is None:
        return None
    try:
        return decode_json(data, StopRequest)
    except SpecError as error:
        raise StoreError(f"{path} is not a request to stop: {error}") from error


def _path(prefix: str, token: int) -> str:
    return f"{prefix}/requests/{token:012d}.json"
