"""What a job tells the scheduler, through the store: heartbeats while it runs, a result when it ends.

Each lease writes paths of its own, so an older one never overwrites what a newer one said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

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


MAX_RESULT_BYTES: Final = 1 << 20
"""Of what is written of one attempt, whatever the entry point returned, raised and printed."""

MAX_TEXT_CHARACTERS: Final = 4000
TRACEBACK_LINES: Final = 40
TRACEBACK_LINE_CHARACTERS: Final = 500
"""Of each line, so that a message without end leaves room for the lines that say where it came from."""


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
    """Write how the attempt ended; texts are cut to what people need of them.

    Raises:
        StoreError: The store could not be written, or there is more to write than anybody would read.
    """
    path, data = _result_path(prefix, result.token), encode_json(_cut(result))
    _check_size(path, data)
    store.put(path, data)


def read_result(store: ObjectStore, prefix: str, token: int) -> Result | None:
    """Return how lease `token` ended by its own account, or None when it has not said so.

    Raises:
        StoreError: The store could not be read, or holds something else there.
    """
    path = _result_path(prefix, token)
    data = store.get(path)
    if data is None:
        return None
    _check_size(path, data)
    try:
        return decode_json(data, Result)
    except SpecError as error:
        raise StoreError(f"{path} is not what a job wrote: {error}") from error


def _cut(result: Result) -> Result:
    error = result.error and ErrorRecord(
        type=result.error.type[:MAX_TEXT_CHARACTERS],
        message=result.error.message[:MAX_TEXT_CHARACTERS],
        traceback="\n".join(
            line[:TRACEBACK_LINE_CHARACTERS]
            for line in result.error.traceback.splitlines()[-TRACEBACK_LINES:]
        ),
    )
    return replace(result, error=error, reason=result.reason[:MAX_TEXT_CHARACTERS])


def _check_size(path: str, data: bytes) -> None:
    if len(data) > MAX_RESULT_BYTES:
        raise StoreError(
            f"{path} has {len(data)} bytes, and the result of a job has {MAX_RESULT_BYTES} at most"
        )


def _result_path(prefix: str, token: int) -> str:
    return f"{prefix}/results/{token:012d}.json"
