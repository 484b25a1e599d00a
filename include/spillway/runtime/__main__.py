"""`python -m spillway.runtime [SUBMISSION.json]`: run one submission; without a file it is in `SPILLWAY_SUBMISSION`."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.checkpoints import open_store
from spillway.errors import SpecError, StoreError, StoreUrlError
from spillway.model import Submission
from spillway.model.codec import decode_json
from spillway.runtime import exit_codes
from spillway.runtime.gang.membership import is_gang
from spillway.runtime.gang.start import Attempt, run_in_gang
from spillway.runtime.log_tail import kept_output
from spillway.runtime.notice import Notice
from spillway.runtime.notice.choice import choose_watchers, grace_period, lead
from spillway.runtime.notice.request import RequestWatcher
from spillway.runtime.notice.watcher import Lookout
from spillway.runtime.run import run
from spillway.runtime.signals import heard_at_once, listen, notice_signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger("spillway.runtime")


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the submission that the command line or the environment holds, and return the exit code."""
    notice = Notice()
    listen(notice)  # before anything slow: a notice that comes during imports must not kill us
    with kept_output() as log_tail:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        try:
            submission = decode_json(_submission_text(arguments, environment), Submission)
            _take_signals(notice, submission, environment)
            watchers = choose_watchers(environment)
            ahead = lead(environment, notice.grace_period)
        except SpecError:
            log.exception("nothing to run")
            return exit_codes.BAD_ENTRY_POINT
        try:
            store = open_store(submission.store)
            watchers.append(RequestWatcher(store, submission))
            with (
                heard_at_once(notice, environment),
                Lookout(watchers, notice, lead=ahead),
                _scratch(environment) as folder,
            ):
                scratch = Path(folder)
                if not is_gang(submission):
                    return run(submission, store, scratch=scratch, notice=notice, log_tail=log_tail)
                return run_in_gang(
                    Attempt(
                        submission=submission,
                        store=store,
                        scratch=scratch,
                        notice=notice,
                        log_tail=log_tail,
                        environment=environment,
                    )
                )
        except SpecError:
            log.exception("%s cannot start", submission.key)
            return exit_codes.BAD_ENTRY_POINT
        except StoreUrlError:
            log.exception("%s has nowhere to save", submission.key)
            return exit_codes.BAD_ENTRY_POINT
        except StoreError:
            log.exception("the store %s does not work", submission.store)
            return exit_codes.FAILED


def _take_signals(notice: Notice, submission: Submission, environment: Mapping[str, str]) -> None:
    notice.grace_period = grace_period(environment, submission.grace_period)
    listen(notice, notice_signals(environment), environment)


def _scratch(environment: Mapping[str, str]) -> tempfile.TemporaryDirectory[str]:
    place = environment.get("SPILLWAY_SCRATCH")
    try:
        # What a process that was left behind still writes there is no reason to say that the work failed.
        return tempfile.TemporaryDirectory(
            prefix="spillway-", dir=place, ignore_cleanup_errors=True
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if place is None:
            raise
        raise SpecError(
            f"SPILLWAY_SCRATCH is {place!r}, where no folder can be made: {error.strerror}; name a folder that is there"
            " and can be written to"
        ) from error


def _submission_text(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    if arguments:
        try:
            return Path(arguments[0]).read_text(encoding="utf-8")
        except OSError as error:
            raise SpecError(
                f"cannot read the submission {arguments[0]}: {error.strerror}"
            ) from error
    try:
        return environment["SPILLWAY_SUBMISSION"]
    except KeyError:
        raise SpecError(
            "no submission: name its file on the command line, or put its JSON into SPILLWAY_SUBMISSION"
        ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
