"""A demo as a stranger starts it, and what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil

from e2e.deployment import PROJECT
from spillway.checkpoints import open_store
from spillway.demo.site import HOME_VARIABLE
from spillway.runtime import Session
from spillway.runtime.exchange import read_result

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.model import Lease


def start_demo(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "spillway.demo", "--home", str(home), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT,
        start_new_session=True,
    )


def press_ctrl_c(demo: subprocess.Popen[str]) -> None:
    """Send what a terminal sends: a signal to every process that was not started in a session of its own."""
    os.killpg(demo.pid, signal.SIGINT)


def processes_below(home: Path) -> list[str]:
    """Return the command lines of processes that work for the deployment in `home`."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ", "status"]):
        environ = process.info["environ"] or {}
        cmdline = " ".join(process.info["cmdline"] or [])
        is_ours = str(home) in (environ.get("AIRFLOW_HOME"), environ.get(HOME_VARIABLE)) or (
            str(home) in cmdline
        )
        if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(cmdline)
    return found


def result_of(lease: Lease) -> Any:
    result = read_result(open_store(lease.submission.store), lease.submission.prefix, lease.token)
    assert result is not None
    return result.value


def train_uninterrupted(home: Path, sweep: Any, dataset: str, *, size: str) -> Any:
    from spillway.workloads.pipeline import train

    session = Session.local(home / "uninterrupted")
    return train(session, dataset=dataset, best=sweep["best"], size=size, seed=0)
