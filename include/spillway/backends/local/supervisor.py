"""`python -m spillway.backends.local.supervisor FOLDER`: run one job, take it back when it is time, write how it ended.

A gang is several process groups, one for each node, that find each other on this machine. The first is the job's process.

It decides nothing of its own: `next_signal` and `judge` are functions of what it sees, and it is the loop around them. It
holds the lock on the job's `alive` file, which it was given when it was started, until it ends, so that everybody can tell
whether it lives.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.backends.local.folders import JobFolder, Launch, Status
from spillway.backends.local.processes import MARK, RELEASE_GRACE, identify, kill, signal_group
from spillway.model import JobEvent
from spillway.runtime.exit_codes import PREEMPTED
from spillway.runtime.gang.membership import LOOPBACK, is_gang
from spillway.runtime.gang.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spillway.model import Submission

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
    nodes = _start(folder, launch)
    folder.write(identify(nodes[0].pid))
    exit_code, taken_back = _watch(nodes, folder, launch)
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


def _start(folder: JobFolder, launch: Launch) -> list[subprocess.Popen[bytes]]:
    """Start a process group for each node."""
    submission = folder.read_submission()
    assert submission is not None, "written before the supervisor is started"
    command = [sys.executable, "-m", "spillway.runtime", str(folder.submission_path)]
    environment = {
        **os.environ,
        **launch.environment,
        "PYTHONUNBUFFERED": "1",
        "SPILLWAY_SCRATCH": str(folder.scratch),
        MARK: folder.mark,
    }
    return [
        subprocess.Popen(  # noqa: S603  # our own wrapper, in the interpreter that we run in
            command,
            cwd=folder.scratch,
            env={**environment, **of_gang},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        for of_gang in gang_environments(submission)
    ]


def gang_environments(submission: Submission) -> list[dict[str, str]]:
    """Return for each node what says which it is; nothing for a job of one process."""
    if not is_gang(submission):
        return [{}]
    shared = {
        "SPILLWAY_GANG_NODES": str(submission.nodes),
        "SPILLWAY_GANG_HEAD": LOOPBACK,
        "SPILLWAY_GANG_PORT": str(free_port(following=1)),
        "SPILLWAY_GANG_SECRET": secrets.token_hex(16),
    }
    return [{**shared, "SPILLWAY_GANG_RANK": str(rank)} for rank in range(submission.nodes)]


def together(exit_codes: Sequence[int]) -> int:
    """Return the exit code of a job whose nodes ended with these.

    A failure that a node tells of comes first, then a crash, then a preemption. A node that was killed did not end by
    itself: where the others say that they were preempted, which they say of a gang that lost a member, so was the job.
    """
    failed = [code for code in exit_codes if code > 0 and code != PREEMPTED]
    crashed = [code for code in exit_codes if code < 0 and code != -signal.SIGKILL]
    stopped = [code for code in exit_codes if code == PREEMPTED]
    return next(iter([*failed, *crashed, *stopped, *sorted(exit_codes)]))


def _watch(
    nodes: Sequence[subprocess.Popen[bytes]], folder: JobFolder, launch: Launch
) -> tuple[int, bool]:
    """Return the job's exit code, and whether the pool took it back before it ended."""
    sent: signal.Signals | None = None
    released_at: datetime | None = None
    while (exit_code := _wait(nodes)) is None:
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
            for node in nodes:
                if node.returncode is None:  # not collected yet, so the number is still its own
                    signal_group(node.pid, due)
            sent = due
    return exit_code, sent is not None and released_at is None


def _wait(nodes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for a moment; return the job's exit code once every node has ended."""
    running = next((node for node in nodes if node.poll() is None), None)
    if running is not None:
        with suppress(subprocess.TimeoutExpired):
            running.wait(TICK_SECONDS)
    codes = [node.poll() for node in nodes]
    ended = [code for code in codes if code is not None]
    return together(ended) if len(ended) == len(nodes) else None


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
