"""Start `torchrun` on one node, and make one exit code of how its processes ended.

Its workers are members of the gang; the nodes themselves need not meet. `torchrun` is asked to restart nothing: going on
after a loss is what leases and checkpoints are for.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from spillway.model.codec import encode_json
from spillway.runtime import exit_codes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from spillway.model import Submission
    from spillway.runtime.gang.membership import Member
    from spillway.runtime.notice import Notice

log = logging.getLogger(__name__)

ENDS: Final = "SPILLWAY_GANG_ENDS"
"""Names the folder in which each worker leaves its exit code: `torchrun` itself ends with 1 whatever they were."""

_LOOK_SECONDS: Final = 0.2


def command(submission: Submission, member: Member, path: Path) -> list[str]:
    """Return the command that starts this node's workers: one for each accelerator, or one."""
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        f"--nnodes={member.nodes}",
        f"--node-rank={member.rank}",
        f"--nproc-per-node={max(submission.resources.accelerator_count, 1)}",
        f"--master-addr={member.head_address}",
        f"--master-port={member.port + 1}",
        "--max-restarts=0",
        *("-m", "spillway.runtime", str(path)),
    ]


def run_node(submission: Submission, member: Member, *, scratch: Path, notice: Notice) -> int:
    """Run this node's workers to their end and return the exit code that they agreed on."""
    ends, path = scratch / "ends", scratch / "submission.json"
    ends.mkdir()
    path.write_bytes(encode_json(submission))
    environment = {**os.environ, ENDS: str(ends), "SPILLWAY_GANG_PORT": str(member.port)}
    with subprocess.Popen(  # noqa: S603  # torchrun, in the interpreter that we run in
        command(submission, member, path), env=environment, stdin=subprocess.DEVNULL
    ) as launcher:
        left = _watch(launcher, notice)
    codes = [int(file.read_text(encoding="utf-8")) for file in sorted(ends.iterdir())]
    code = judge(codes, left=left, noticed=notice.received)
    log.info("torchrun ended with %d, its workers with %s: %d", left, codes, code)
    return code


def judge(codes: Iterable[int], *, left: int, noticed: bool) -> int:
    """Return the exit code of a node whose workers said `codes`, those that could, and whose launcher left with `left`."""
    said = set(codes)
    failed = sorted(said - {exit_codes.SUCCEEDED, exit_codes.PREEMPTED})
    if failed:
        return failed[0]
    if exit_codes.PREEMPTED in said or (left and noticed):
        return exit_codes.PREEMPTED
    return exit_codes.SUCCEEDED if left == 0 else exit_codes.FAILED


def _watch(launcher: subprocess.Popen[bytes], notice: Notice) -> int:
    """Wait for the launcher, and pass a notice on to it, which passes it on to the workers."""
    is_told = False
    while True:
        try:
            return launcher.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if notice.received and not is_told:
                is_told = True
                launcher.send_signal(signal.SIGTERM)
