"""Run one submission: call its entry point, keep what it returns, and say by the exit code how it ended."""

from __future__ import annotations

import json
import logging
import traceback
from typing import TYPE_CHECKING

from spillway.errors import SpecError, StoreError
from spillway.runtime import entry_point, exit_codes
from spillway.runtime.clock import Clock, SystemClock
from spillway.runtime.exchange import ErrorRecord, Outcome, Result, write_result
from spillway.runtime.session import Preempted, Session

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from spillway.checkpoints.store import ObjectStore
    from spillway.model import Submission
    from spillway.runtime.signals import Notice

log = logging.getLogger(__name__)

MAX_RESULT_BYTES = 256 * 1024
"""Results pass through the store into Airflow's XCom; larger ones belong in a file of their own."""

TRACEBACK_LINES = 40

_EXIT_CODES = {
    Outcome.SUCCEEDED: exit_codes.SUCCEEDED,
    Outcome.FAILED: exit_codes.FAILED,
    Outcome.PREEMPTED: exit_codes.PREEMPTED,
}


def run(
    submission: Submission,
    store: ObjectStore,
    *,
    scratch: Path,
    notice: Notice,
    clock: Clock | None = None,
) -> int:
    """Run the submission's entry point to its end and return the exit code, having written its result to the store.

    Raises:
        StoreError: The result could not be written.
    """
    clock = clock or SystemClock()
    try:
        function = entry_point.load(submission.entry_point, submission.arguments)
    except SpecError as error:
        log.error("%s", error)  # noqa: TRY400  # the message has the place and the remedy; our own frames do not help
        _write(store, submission, clock, Outcome.FAILED, error=_record(error))
        return exit_codes.BAD_ENTRY_POINT
    session = Session(submission, store, scratch=scratch, clock=clock, notice=notice)
    outcome, value, problem = _call(function, session, submission)
    session.end(succeeded=outcome is Outcome.SUCCEEDED)
    _write(store, submission, clock, outcome, value=value, error=problem)
    return _EXIT_CODES[outcome]


def _call(
    function: entry_point.Function, session: Session, submission: Submission
) -> tuple[Outcome, JsonValue, ErrorRecord | None]:
    try:
        returned = entry_point.call(function, session, submission.arguments)
        return Outcome.SUCCEEDED, check_result(returned), None
    except Preempted as preempted:
        log.info("%s", preempted)
        return Outcome.PREEMPTED, None, None
    except (Exception, SystemExit) as error:  # the top of the user's code
        log.exception("%s failed", submission.entry_point)
        # The notice goes to every process of the job; what breaks after it most likely breaks because others obeyed it.
        outcome = Outcome.PREEMPTED if session.preempted else Outcome.FAILED
        return outcome, None, _record(error)


def check_result(value: object) -> JsonValue:
    """Return what an entry point returned as JSON has it.

    Raises:
        SpecError: It is not JSON, or too large.
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"the entry point returned what is not JSON ({error}); return dicts, lists, text, finite numbers and None"
        ) from error
    if len(text.encode()) > MAX_RESULT_BYTES:
        raise SpecError(
            f"the entry point returned {len(text.encode())} bytes of JSON and {MAX_RESULT_BYTES} are allowed; write it"
            " to a file and return where it is"
        )
    result: JsonValue = json.loads(text)
    return result


def _record(error: BaseException) -> ErrorRecord:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return ErrorRecord(
        type=type(error).__qualname__,
        message=str(error),
        traceback="\n".join(lines[-TRACEBACK_LINES:]),
    )


def _write(
    store: ObjectStore,
    submission: Submission,
    clock: Clock,
    outcome: Outcome,
    *,
    value: JsonValue = None,
    error: ErrorRecord | None = None,
) -> None:
    result = Result(
        token=submission.token, outcome=outcome, written_at=clock.now(), value=value, error=error
    )
    try:
        write_result(store, submission.prefix, result)
    except StoreError:
        log.exception("the result could not be written")
        raise
