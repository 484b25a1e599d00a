"""One node of a Ray cluster that spans a gang: the head starts it, the others join; all by Ray's own command.

Only who knows the cluster's token may use it; the head makes the token and gives it to the members that it let in.
Source: Ray, "Token authentication", docs.ray.io/en/latest/ray-security/token-auth.html.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

import psutil

from spillway.errors import GangError
from spillway.runtime.gang.membership import LOOPBACK
from spillway.runtime.gang.ports import free_port
from spillway.runtime.tied import tied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from spillway.model import Submission
    from spillway.runtime.gang.membership import Member
    from spillway.runtime.gang.watch import Gang

log = logging.getLogger(__name__)

TOKEN: Final = "RAY_AUTH_TOKEN"  # noqa: S105  # the name of a variable
GIVEN: Final = "SPILLWAY_RAY_GIVEN"
"""Set where whoever started the job has Ray run already: jobs of a Ray cluster."""
START_SECONDS: Final = 120.0
STARTS: Final = 3
TIMED_OUT: Final = "timed out during startup"
"""What Ray says of a node that was not there after the 30 s that it waits for one, whatever the machine is busy with."""
_STARTED: Final = b"Ray runtime started"
_JOIN_SECONDS: Final = 0.5
_END_SECONDS: Final = 5.0


def is_given(environment: Mapping[str, str]) -> bool:
    """Return whether there is a cluster already that `ray.init()` connects to, so that none is to be started."""
    return GIVEN in environment


def new_token() -> str:
    """Return a token for one cluster."""
    return secrets.token_hex(32)


def command(submission: Submission, gang: Gang) -> list[str]:
    """Return the command that makes this machine a node of the gang's cluster."""
    member = gang.member
    resources = submission.resources
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    size = [
        f"--num-cpus={max(int(resources.cpus), 1)}",
        f"--num-gpus={resources.accelerator_count}",
        *(f"--node-ip-address={address}" for address in _own_address(member)),
    ]
    if member.head_address == LOOPBACK:
        size += _apart(member)
    if not member.is_head:
        return [*ray, *size, f"--address={member.head_address}:{member.port + 1}"]
    return [
        *ray,
        *size,
        "--head",
        f"--port={member.port + 1}",
        "--include-dashboard=false",
        "--no-monitor",
    ]


def _apart(member: Member) -> list[str]:
    """Return what keeps nodes of one machine apart, those of other clusters too: Ray's own ports are the same for all."""
    ports = [
        *("--min-worker-port=0", "--max-worker-port=0"),
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    if not member.is_head:
        return ports
    return [*ports, f"--ray-client-server-port={free_port()}"]


def _own_address(member: Member) -> list[str]:
    """Return the address by which the others reach this machine: the one it speaks to the head from, where that says so.

    Ray itself looks for the one that leads to the Internet, which a network of a cluster's own may not do.
    """
    address: str
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((member.head_address, member.port))  # sends nothing
        address = probe.getsockname()[0]
        if member.head_address == LOOPBACK or not ip_address(address).is_loopback:
            return [address]
    return []  # the name of a machine often means loopback on that machine itself


@contextmanager
def ray_node(
    submission: Submission, gang: Gang, scratch: Path, *, lost: Callable[[], None]
) -> Iterator[None]:
    """Keep this machine in the gang's cluster; on the head, `ray.init()` inside the block connects to it.

    Args:
        submission: What is run.
        gang: Who else is in the cluster.
        scratch: Folder for Ray's output.
        lost: Called from another thread when this node's Ray ends by itself.

    Raises:
        GangError: Ray did not start; the message has its last words.
    """
    address = f"{gang.member.head_address}:{gang.member.port + 1}"
    settings = {
        "RAY_AUTH_MODE": "token",
        TOKEN: gang.shared[TOKEN],
        "RAY_ADDRESS": address,
    }
    os.environ.update(settings)
    over = Event()
    try:
        node = start(tied(command(submission, gang)), scratch / "ray.log")
        try:
            watch = Thread(target=_watch, args=(node, over, lost), name="spillway-ray", daemon=True)
            watch.start()
            yield
        finally:
            over.set()
            stop(node)
    finally:
        for name in settings:
            os.environ.pop(name, None)


def start(
    command: Sequence[str], log_file: Path, *, times: int = STARTS
) -> subprocess.Popen[bytes]:
    """Return the process of a node that is up; it is started again where Ray did not wait long enough for itself.

    Raises:
        GangError: It did not start; the message has its last words.
    """
    with log_file.open("wb") as output:
        node = subprocess.Popen(  # noqa: S603  # Ray's own command, in the interpreter that we run in
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_started(node, log_file)
    except BaseException as error:
        stop(node)
        if TIMED_OUT not in str(error) or times == 1:
            raise
    else:
        return node
    log.warning("Ray did not come up in the time it gives itself; starting it again")
    return start(command, log_file, times=times - 1)


def _wait_until_started(node: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while _STARTED not in log_file.read_bytes():
        if node.poll() is not None or time.monotonic() > deadline:
            words = log_file.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise GangError(f"Ray did not start on this node; its last words: {words}")
        time.sleep(_JOIN_SECONDS)  # Ray says so on its output only; until the deadline


def _watch(node: subprocess.Popen[bytes], over: Event, lost: Callable[[], None]) -> None:
    """Look after this node's Ray: `--block` has it end when any of its processes does."""
    while not over.wait(_JOIN_SECONDS):
        if node.poll() is not None:
            log.error("Ray has ended on this node, with %s", node.returncode)
            lost()
            return


def stop(node: subprocess.Popen[bytes]) -> None:
    """End this node's Ray and everything it started, each by its own id: other clusters of the machine live on."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(node.pid).children(recursive=True)
    node.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        node.wait(_END_SECONDS)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.kill()
    node.wait()
