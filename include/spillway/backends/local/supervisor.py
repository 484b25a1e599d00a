"""`python -m spillway.backends.local.supervisor FOLDER`: run one job, take it back when it is time, write how it ended.

It decides nothing of its own: `next_signal` and `judge` are functions of what it sees, and it is the loop around them. It
holds the lock on the job's `alive` file, which it was given when it was started, until it ends, so that everybody can tell
whether it lives.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from spillway.backends.local.folders import JobFolder, Launch, Status
from spillway.backends.local.processes import MARK, RELEASE_GRACE, identify, kill, signal_group
from spillway.model import JobEvent
from spillway.runtime.exit_codes import PREEMPTED

log = logging.getLogger("spillway.supervisor")

TICK_SECONDS = 0.1
KILL_LIMIT = timedelta(seconds=10)


def next_signal(
    *,
    now: datetime,
    taken_back_at: datetime | None,
    released_at: datetime | None,
    grace_period: timedelta,
    sent: signal.Signals | None,
) -> signal.Signals | None:
    """Return the signal that is due to the job now and has not been sent, or None."""
    ends = [
        (notice_at, grace)
        for notice_at, grace in ((taken_back_at, grace_period), (released_at, RELEASE_GRACE))
        if notice_at is not None and now >= notice_at
    ]
    if not ends or sent is signal.SIGKILL:
        return None
    if any(now >= notice_at + grace for notice_at, grace in ends):
        return signal.SIGKILL
    return signal.SIGTERM if sent is None else None


def judge(*, exit_code: int, taken_back: bool, released: bool) -> tuple[JobEvent, str]:
    """Return what the end of a job means, and the words for it."""
    words = f"exit code {exit_code}" if exit_code >= 0 else f"killed by signal {-exit_code}"
    if exit_code == 0:
        return JobEvent.SUCCEEDED, words
    if released:
        return JobEvent.CANCELLED, f"released; {words}"
    if taken_back:
        return JobEvent.PREEMPTED, f"the pool took its capacity back; {words}"
    if exit_code == PREEMPTED:
        return JobEvent.PREEMPTED, f"the job says that its capacity is taken back; {words}"
    return JobEvent.FAILED, words


def supervise(folder: JobFolder) -> None:
    """Run the job to its end."""
    launch = folder.read_launch()
    assert launch is not None, "written before the supervisor is started"
    if folder.is_released or folder.read_process() is not None:
        return
    folder.scratch.mkdir(exist_ok=True)
    job = _start(folder, launch)
    folder.write(identify(job.pid))
    exit_code, taken_back = _watch(job, folder, launch)
    if not kill(
        folder.mark, limit=KILL_LIMIT
    ):  # what it left running would use capacity that is given back
        log.error("processes of %s cannot be killed", folder.path)
    shutil.rmtree(folder.scratch, ignore_errors=True)
    event, detail = judge(exit_code=exit_code, taken_back=taken_back, released=folder.is_released)
    folder.write(
        Status(
            event=event,
            exit_code=exit_code,
            ended_at=datetime.now(UTC),
            detail=detail,
        )
    )


def _start(folder: JobFolder, launch: Launch) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "spillway.runtime", str(folder.submission_path)]
    environment = {
        **os.environ,
        **launch.environment,
        "PYTHONUNBUFFERED": "1",
        "SPILLWAY_SCRATCH": str(folder.scratch),
        MARK: folder.mark,
    }
    return subprocess.Popen(  # noqa: S603  # our own wrapper, in the interpreter that we run in
        command,
        cwd=folder.scratch,
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _watch(job: subprocess.Popen[bytes], folder: JobFolder, launch: Launch) -> tuple[int, bool]:
    """Return the job's exit code, and whether the pool took it back before it ended."""
    sent: signal.Signals | None = None
    released_at: datetime | None = None
    while (exit_code := _wait(job)) is None:
        now = datetime.now(UTC)
        if released_at is None and folder.is_released:
            released_at = now
        due = next_signal(
            now=now,
            taken_back_at=launch.taken_back_at,
            released_at=released_at,
            grace_period=launch.grace_period,
            sent=sent,
        )
        if due is not None:
            log.info("sending %s to the job", due.name)
            signal_group(job.pid, due)
            sent = due
    return exit_code, sent is not None and released_at is None


def _wait(job: subprocess.Popen[bytes]) -> int | None:
    try:
        return job.wait(TICK_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def main() -> None:
    """Supervise the job whose folder the command line names."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # The shell that started us ignores it for us, and the job would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = JobFolder(Path(sys.argv[1]))
    try:
        supervise(folder)
    except Exception:  # the top of a process: say what ended it, where the job's output is, and end
        log.exception("the supervisor of %s failed", folder.path)
        raise


if __name__ == "__main__":
    main()
