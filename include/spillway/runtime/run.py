"""Run one submission: call its entry point, keep what it returns, and say by the exit code how it ended."""

from __future__ import annotations

import json
import logging
import traceback
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spillway.checkpoints.store import ObjectStore
from spillway.errors import SpecError, StoreError
from spillway.model import Submission
from spillway.runtime import entry_point, exit_codes
from spillway.runtime.clock import Clock, SystemClock
from spillway.runtime.exchange import ErrorRecord, Outcome, Result, write_result
from spillway.runtime.last_words import LastWords
from spillway.runtime.log_tail import LogTail, unicode
from spillway.runtime.pulse import LOG_TAIL_BYTES, BackgroundPulse, Tempo
from spillway.runtime.session import Preempted, Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pydantic import JsonValue

    from spillway.runtime.notice import Notice

log = logging.getLogger(__name__)

MAX_VALUE_BYTES = 256 * 1024
"""Values pass through the store into Airflow's XCom; larger ones belong in a file of their own."""

_EXIT_CODES = {
    Outcome.SUCCEEDED: exit_codes.SUCCEEDED,
    Outcome.FAILED: exit_codes.FAILED,
    Outcome.PREEMPTED: exit_codes.PREEMPTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """Writes how the attempt ended."""

    submission: Submission
    store: ObjectStore
    clock: Clock
    log_tail: LogTail

    def write(self, outcome: Outcome, **facts: Any) -> None:
        result = Result(
            token=self.submission.token,
            outcome=outcome,
            written_at=self.clock.now(),
            log_tail=self.log_tail.read(),
            **facts,
        )
        try:
            write_result(self.store, self.submission.prefix, result)
        except StoreError:
            log.exception("the result could not be written")
            raise


def run(
    submission: Submission,
    store: ObjectStore,
    *,
    scratch: Path,
    notice: Notice,
    clock: Clock | None = None,
    log_tail: LogTail | None = None,
    make_session: Callable[..., Session] = Session,
) -> int:
    """Run the submission's entry point to its end and return the exit code, having written its result to the store.

    After a notice whose deadline the entry point lets pass, this does not return: the process exits as preempted.

    Raises:
        StoreError: The result could not be written, and somebody waits for it: the job was not preempted.
    """
    clock, log_tail = clock or SystemClock(), log_tail or LogTail()
    report = _Report(submission=submission, store=store, clock=clock, log_tail=log_tail)
    try:
        function = entry_point.load(submission.entry_point, submission.arguments)
    except SpecError as error:
        log.error("%s", error)  # noqa: TRY400  # the message has the place and the remedy; our own frames do not help
        report.write(Outcome.FAILED, error=_record(error))
        return exit_codes.BAD_ENTRY_POINT
    pulse = BackgroundPulse(
        store,
        submission.prefix,
        clock=clock,
        notice=notice,
        tempo=Tempo.of(submission.store),
        read_log=lambda: log_tail.read(max_bytes=LOG_TAIL_BYTES),
    )
    session = make_session(
        submission, store, scratch=scratch, clock=clock, notice=notice, pulse=pulse
    )

    def say_last_words() -> None:
        last = session.heartbeat
        saved = last.checkpoint_step
        stands = "there is no checkpoint" if saved is None else f"that of step {saved} stands"
        reason = f"{notice.reason}; it did not come to its next checkpoint in time: {stands}"
        report.write(Outcome.PREEMPTED, reason=reason, checkpoint_step=saved)
        pulse.end(last)

    with pulse, LastWords(notice, say_last_words, clock=clock):
        pulse.tell(
            session.heartbeat
        )  # from now on, whether or not the work ever says how far it is
        outcome, value, problem = _call(function, session, submission)
    session.end(succeeded=outcome is Outcome.SUCCEEDED)
    # The next attempt needs nothing of a preempted one but its checkpoints, and the code says that it may begin.
    with suppress(StoreError) if outcome is Outcome.PREEMPTED else nullcontext():
        report.write(
            outcome,
            value=value,
            error=problem,
            reason=_reason(outcome, problem, notice),
            checkpoint_step=session.heartbeat.checkpoint_step,
        )
    return _EXIT_CODES[outcome]


def _call(
    function: entry_point.Function, session: Session, submission: Submission
) -> tuple[Outcome, JsonValue, ErrorRecord | None]:
    try:
        value = check_result(entry_point.call(function, session, submission.arguments))
        session.flush()
        return Outcome.SUCCEEDED, value, None
    except Preempted as preempted:
        log.info("%s", preempted)
        return Outcome.PREEMPTED, None, None
    except (Exception, SystemExit) as error:  # the top of the user's code
        log.exception("%s failed", submission.entry_point)
        # The notice goes to every process of the job; what breaks after it most likely breaks because others obeyed it.
        outcome = Outcome.PREEMPTED if session.preempted else Outcome.FAILED
        return outcome, None, _record(error)


def _reason(outcome: Outcome, problem: ErrorRecord | None, notice: Notice) -> str:
    if outcome is Outcome.PREEMPTED:
        return notice.reason
    return "" if problem is None else f"{problem.type}: {problem.message}"


def check_result(value: object) -> JsonValue:
    """Return what an entry point returned as JSON has it.

    Raises:
        SpecError: It is not JSON, or too large.
    """
    try:
        data = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"the entry point returned what is not JSON ({error}); return dicts, lists, text of Unicode, finite"
            " numbers and None"
        ) from error
    if len(data) > MAX_VALUE_BYTES:
        raise SpecError(
            f"the entry point returned {len(data)} bytes of JSON and {MAX_VALUE_BYTES} are allowed; write it"
            " to a file and return where it is"
        )
    result: JsonValue = json.loads(data)
    return result


def _record(error: BaseException) -> ErrorRecord:
    return ErrorRecord(
        type=type(error).__qualname__,
        message=unicode(str(error)),
        traceback=unicode("".join(traceback.format_exception(error))),
    )
