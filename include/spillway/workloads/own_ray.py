"""Which Ray a workload works on: the one that spans its lease's machines, or one of its own."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psutil

from spillway.model import Launcher
from spillway.runtime.gang.ray_node import STARTS, TIMED_OUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.model import Submission

log = logging.getLogger(__name__)

SETTINGS: Final = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what becomes the default; without it Ray warns
    "RAY_USAGE_STATS_ENABLED": "0",
}

NO_SPARE_WORKERS: Final = {
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}
"""What keeps Ray from starting a process for each CPU before anybody asks for one."""

_SECONDS_TO_END: Final = 10
_ADDRESS: Final = "RAY_ADDRESS"
_OF_A_JOB: Final = frozenset({_ADDRESS, "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_AUTH_TOKEN"})
_LONGEST_TEMPORARY_FOLDER: Final = 30
"""Ray adds some 70 characters for the sockets in it, whose paths may have 107."""


def spanning_address(submission: Submission) -> str | None:
    """Return the address of the Ray that spans the lease's machines; None where there is none.

    A job of a Ray cluster finds that one's address too, but what it leased of the cluster is what its own process holds:
    waiting for more would be waiting for itself.
    """
    return os.environ.get(_ADDRESS) if submission.launcher is Launcher.RAY else None


def environment(*, joins: bool) -> Mapping[str, str]:
    """Return the variables for a process that joins the Ray of its lease, or starts one of its own."""
    if joins:
        return {**os.environ, **SETTINGS}
    kept = {name: value for name, value in os.environ.items() if name not in _OF_A_JOB}
    # A token of its own, or Ray would keep one in the home folder.
    return {**NO_SPARE_WORKERS, **kept, **SETTINGS, "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def short_folder() -> str | None:
    """Return where to make a folder whose sockets have names that the system allows; None for the usual place."""
    if len(tempfile.gettempdir()) <= _LONGEST_TEMPORARY_FOLDER:
        return None
    return "/tmp"  # noqa: S108  # the folder made in it is nobody else's


def start(*, times: int = STARTS, **options: Any) -> None:
    """Start a Ray of this process's own, again where a busy machine takes longer than Ray waits for itself.

    Args:
        times: How often at the most.
        options: What `ray.init` is given beside the address.
    """
    import ray

    before = set(psutil.Process().children(recursive=True))
    try:
        ray.init(address="local", **options)
    except Exception as error:
        if TIMED_OUT not in str(error) or times == 1:
            raise
    else:
        return
    log.warning("Ray did not come up in the time it gives itself; starting it again")
    left = set(psutil.Process().children(recursive=True)) - before
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_SECONDS_TO_END)
    start(times=times - 1, **options)
