"""What a job tells the scheduler, through the store: heartbeats while it runs, a result when it ends.

Each lease writes paths of its own, so an older one never overwrites what a newer one said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from pydantic import JsonValue

from spillway.errors import SpecError, StoreError
from spillway.model import Heartbeat
from spillway.model.codec import decode_json, encode_json

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore

T = TypeVar("T")


class Outcome(StrEnum):
    """How an entry point ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PREEMPTED = "preempted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRecord:
    """Why an entry point failed.

    Attributes:
        type: Name of the exception's class.
        traceback: Its last lines.
    """

    type: str
    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How an attempt ended, by its own account.

    Attributes:
        token: Lease that wrote it.
        value: What the entry point returned; None unless it succeeded.
        error: Why it failed; None when it did not.
    """

    token: int
    outcome: Outcome
    written_at: datetime
    value: JsonValue = None
    error: ErrorRecord | None = None


def write_heartbeat(store: ObjectStore, prefix: str, heartbeat: Heartbeat) -> None:
    """Write the heartbeat in place of the lease's last one."""
    store.put(_heartbeat_path(prefix, heartbeat.token), encode_json(heartbeat))


def read_heartbeat(store: ObjectStore, prefix: str, token: int) -> Heartbeat | None:
    """Return the last heartbeat of lease `token`, or None when there is none yet.

    Raises:
        StoreError: The store could not be read, or holds something else there.
    """
    return _read(store, _heartbeat_path(prefix, token), Heartbeat)


def write_result(store: ObjectStore, prefix: str, result: Result) -> None:
    """Write how the attempt ended."""
    store.put(_result_path(prefix, result.token), encode_json(result))


def read_result(store: ObjectStore, prefix: str, token: int) -> Result | None:
    """Return how lease `token` ended by its own account, or None when it has not said so.

    Raises:
        StoreError: The store could not be read, or holds something else there.
    """
    return _read(store, _result_path(prefix, token), Result)


def _heartbeat_path(prefix: str, token: int) -> str:
    return f"{prefix}/heartbeats/{token:012d}.json"


def _result_path(prefix: str, token: int) -> str:
    return f"{prefix}/results/{token:012d}.json"


def _read(store: ObjectStore, path: str, kind: type[T]) -> T | None:
    data = store.get(path)
    if data is None:
        return None
    try:
        return decode_json(data, kind)
    except SpecError as error:
        raise StoreError(f"{path} is not what a job wrote: {error}") from error
