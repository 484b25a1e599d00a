"""A demo as a stranger starts it, and what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from e2e.deployment import PROJECT
from patience import LOOK_SECONDS, PATIENCE_SECONDS
from spillway.checkpoints import open_store
from spillway.demo.site import HOME_VARIABLE
from spillway.runtime import Session
from spillway.runtime.exchange import read_result

if TYPE_CHECKING:
    from collections.abc import Callable
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


def trigger(url: str, dag_id: str, conf: dict[str, Any]) -> None:
    """Start a run on the demo's Airflow, as a person at its UI would."""
    with httpx.Client(base_url=url, timeout=60) as client:
        token = client.get("/auth/token").raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        dag = f"/api/v2/dags/{dag_id}"
        client.patch(dag, json={"is_paused": False}).raise_for_status()
        run = {"logical_date": None, "conf": conf}
        client.post(f"{dag}/dagRuns", json=run).raise_for_status()


def wait_until(condition: Callable[[], bool], demo: subprocess.Popen[str]) -> None:
    """Look every so often until `condition` holds; fail when it does not, or when the demo has ended."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert demo.poll() is None, "the demo has ended"
        assert time.monotonic() < end
        time.sleep(LOOK_SECONDS)


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
