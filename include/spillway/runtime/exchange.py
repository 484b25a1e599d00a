"""What a job tells the scheduler, through the store: heartbeats while it runs, a result when it ends.

Each lease writes paths of its own, so an older one never overwrites what a newer one said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import JsonValue

from spillway.errors import SpecError, StoreError
from spillway.model.codec import decode_json, encode_json
from spillway.runtime.heartbeats import read_heartbeat, write_heartbeat

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore

__all__ = [
    "ErrorRecord",
    "Outcome",
    "Result",
    "read_heartbeat",
    "read_result",
    "write_heartbeat",
    "write_result",
]


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
        reason: Why it ended, for people; empty when it succeeded.
        checkpoint_step: Step of its last checkpoint.
        log_tail: Last lines that it printed.
    """

    token: int
    outcome: Outcome
    written_at: datetime
    value: JsonValue = None
    error: ErrorRecord | None = None
    reason: str = ""
    checkpoint_step: int | None = None
    log_tail: str = ""


def write_result(store: ObjectStore, prefix: str, result: Result) -> None:
    """Write how the attempt ended."""
    store.put(_result_path(prefix, result.token), encode_json(result))


def read_result(store: ObjectStore, prefix: str, token: int) -> Result | None:
    """Return how lease `token` ended by its own account, or None when it has not said so.

    Raises:
        StoreError: The store could not be read, or holds something else there.
    """
    path = _result_path(prefix, token)
    data = store.get(path)
    if data is None:
        return None
    try:
        return decode_json(data, Result)
    except SpecError as error:
        raise StoreError(f"{path} is not what a job wrote: {error}") from error


def _result_path(prefix: str, token: int) -> str:
    return f"{prefix}/results/{token:012d}.json"
