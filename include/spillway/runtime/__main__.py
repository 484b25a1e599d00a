"""`python -m spillway.runtime [SUBMISSION.json]`: run one submission; without a file it is in `SPILLWAY_SUBMISSION`."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.checkpoints import open_store
from spillway.errors import SpecError, StoreError
from spillway.model import Submission
from spillway.model.codec import decode_json
from spillway.runtime import exit_codes
from spillway.runtime.log_tail import kept_output
from spillway.runtime.notice import Notice
from spillway.runtime.notice.choice import choose_watchers, grace_period, lead
from spillway.runtime.notice.watcher import Lookout
from spillway.runtime.run import run
from spillway.runtime.signals import listen, notice_signals

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
            lookout = _look_out(notice, submission, environment)
        except SpecError:
            log.exception("nothing to run")
            return exit_codes.BAD_ENTRY_POINT
        lookout.start()
        try:
            store = open_store(submission.store)
            with tempfile.TemporaryDirectory(
                prefix="spillway-", dir=environment.get("SPILLWAY_SCRATCH")
            ) as folder:
                return run(
                    submission, store, scratch=Path(folder), notice=notice, log_tail=log_tail
                )
        except StoreError:
            log.exception("the store %s does not work", submission.store)
            return exit_codes.FAILED
        finally:
            lookout.stop()


def _look_out(notice: Notice, submission: Submission, environment: Mapping[str, str]) -> Lookout:
    """Return the watchers of this machine, and take the signals that are a notice here."""
    grace = grace_period(environment, submission.grace_period)
    notice.grace_period = grace
    listen(notice, notice_signals(environment), environment)
    return Lookout(choose_watchers(environment), notice, lead=lead(environment, grace))


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
