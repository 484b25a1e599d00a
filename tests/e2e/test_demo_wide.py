"""`make demo-wide`: the nightly pipeline over this machine, a real Ray cluster and, where it is installed, a real Slurm."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
import pytest

from conftest import require
from e2e.books import check_books
from e2e.conftest import open_dispatcher
from e2e.demo import (
    press_ctrl_c,
    processes_below,
    result_of,
    start_demo,
    train_uninterrupted,
    trigger,
    wait_until,
)
from spillway.catalog.pools_file import load_pools
from spillway.model import LeaseState
from spillway.testing import ray_cluster, slurm_cluster

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def slurm_processes(folder: str) -> list[str]:
    """Return the command lines of processes that belong to the Slurm cluster in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        cmdline = " ".join(process.info["cmdline"] or [])
        conf = (process.info["environ"] or {}).get("SLURM_CONF", "")
        if folder in cmdline or folder in conf:
            found.append(cmdline)
    return found


def leave_a_job_running(demo: subprocess.Popen[str], home: Path, output: str) -> None:
    """Start a long training on the demo's Airflow, and wait until its job has been heard of."""
    dispatcher = open_dispatcher(home / "spillway", home / "pools.yaml")
    runs = dispatcher.ledger.runs(dag_id="nightly", now=datetime.now(UTC), limit=1000)
    (dataset, *_) = (
        run.lease.submission.arguments["dataset"]
        for run in runs
        if run.lease.task.task_id == "train"
    )
    (url,) = re.findall(r"Airflow is up at (\S+)", output)
    trigger(url, "train", {"dataset": dataset, "size": "full", "markets": ["on_demand"]})
    wait_until(lambda: any(map(dispatcher.heartbeat, dispatcher.ledger.open_leases())), demo)


def test_the_training_moves_between_backends_and_nothing_is_left(tmp_path: Path) -> None:
    require(ray_cluster.is_installed(), "Ray is not installed: pip install 'spillway[ray]'")
    home = tmp_path / "demo"
    with start_demo(home, "--wide", "--size", "short", "--keep") as demo:
        assert demo.stdout is not None
        output = ""
        for line in demo.stdout:
            output += line
            if "Ctrl-C ends it" in line:
                leave_a_job_running(demo, home, output)
                press_ctrl_c(demo)
        assert demo.wait(timeout=120) == 0, output
    assert processes_below(home) == []
    (left,) = open_dispatcher(home / "spillway", home / "pools.yaml").ledger.runs(
        dag_id="train", now=datetime.now(UTC), limit=1000
    )
    assert left.lease.state is LeaseState.CANCELLED

    pools = {pool.name: pool for pool in load_pools(home / "pools.yaml")}
    ledger = open_dispatcher(home / "spillway", home / "pools.yaml").ledger
    leases = [r.lease for r in ledger.runs(dag_id="nightly", now=datetime.now(UTC), limit=1000)]
    assert ledger.open_leases() == []
    assert check_books(home / "spillway" / "ledger.db", "nightly") == len(leases)
    training = sorted((le for le in leases if le.task.task_id == "train"), key=lambda le: le.token)
    assert training[-1].state is LeaseState.SUCCEEDED
    assert {lease.state for lease in training[:-1]} == {LeaseState.PREEMPTED}
    if slurm_cluster.missing_programs():
        assert "Slurm is not installed" in output
        expected = {"local", "ray"}
    else:
        assert training[0].pool == "scavenge"
        assert "Slurm preempts the training" in output
        assert slurm_processes(str(pools["scavenge"].options["folder"])) == []
        expected = {"local", "ray", "slurm"}
    assert {lease.backend for lease in leases} == expected == {p.backend for p in pools.values()}
    assert len({lease.backend for lease in training}) >= 2
    assert "train went from " in output

    (sweep,) = (
        le for le in leases if le.task.task_id == "sweep" and le.ended_at and le.exit_code == 0
    )
    trained = result_of(training[-1])
    dataset = training[-1].submission.arguments["dataset"]
    alone = train_uninterrupted(tmp_path, result_of(sweep), dataset, size="short")
    assert trained["weights_checksum"] == alone["weights_checksum"]
    assert trained["validation_loss"] == alone["validation_loss"]
