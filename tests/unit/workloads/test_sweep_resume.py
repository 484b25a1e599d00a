from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from patience import PATIENCE_SECONDS
from spillway.runtime import Session
from spillway.workloads.space import draw, parse_space
from spillway.workloads.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("leaves_nothing_running")

SPACE = {"x": {"uniform": [0, 1]}}
TRIALS = 20
STEPS = 5


def run(session: Session, folder: Path, **changes: Any) -> dict[str, Any]:
    arguments = {
        "dataset": str(folder),
        "space": SPACE,
        "num_samples": TRIALS,
        "max_steps": STEPS,
        "metric": "loss",
        "trainable": "trial_samples:kept",
        "scheduler": "none",
        "cpus": 2,
        "seed": 3,
    }
    return sweep(session, **{**arguments, **changes})


def steps_done(folder: Path) -> list[tuple[int, ...]]:
    lines = (folder / "steps").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines]


def order_kill(folder: Path, trial: int, step: int, process: str) -> None:
    (folder / f"kill-{trial}-{step}").write_text(process)


@contextmanager
def job_in(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the sweep in a process, as a lease's job is; nothing of it is left."""
    code = (
        "import sys; from pathlib import Path; from datetime import timedelta\n"
        "from spillway.runtime import Session; from spillway.workloads.sweep import sweep\n"
        "folder = Path(sys.argv[1])\n"
        "session = Session.local(folder / 'session', checkpoint_interval=timedelta(milliseconds=1))\n"
        f"sweep(session, dataset=str(folder), space={SPACE!r}, num_samples={TRIALS}, max_steps={STEPS}, metric='loss',\n"
        "      trainable='trial_samples:kept', scheduler='none', cpus=2, seed=3)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], start_new_session=True) as job:
        try:
            yield job
        finally:
            kill_whole(job)


def wait_for_step(folder: Path, job: subprocess.Popen[bytes], step: tuple[int, int]) -> None:
    """Wait until a trial has come to that step."""
    mark = " ".join(map(str, step))
    deadline = time.monotonic() + PATIENCE_SECONDS
    steps = folder / "steps"
    while not (steps.exists() and mark in steps.read_text().splitlines()):
        assert job.poll() is None, "the job ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill_whole(job: subprocess.Popen[bytes]) -> None:
    """Kill the job and all that it started with -9."""
    if job.poll() is not None:
        return
    family = [job.pid, *(child.pid for child in psutil.Process(job.pid).children(recursive=True))]
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    job.wait()


def test_a_head_killed_three_times_costs_no_more_than_what_was_not_saved(folder: Path) -> None:
    """Twice Ray's head is killed within the lease, and once the whole job with it."""
    order_kill(folder, 2, 4, "gcs_server")
    order_kill(folder, 13, 3, "raylet")
    with job_in(folder) as job:
        wait_for_step(folder, job, (7, 4))
    assert (folder / "killed-2-4").exists()

    before = len((folder / "steps").read_text().splitlines())
    session = Session.local(folder / "session")
    saved = {row["trial"]: row for row in session.restore().state["trials"]}
    (folder / "folders").unlink()
    result = run(session, folder)

    assert (folder / "killed-13-3").exists()
    rows = result["trials"]
    assert [row["trial"] for row in rows] == list(range(TRIALS))
    assert all((row["status"], row["steps"]) == ("finished", STEPS) for row in rows)
    done = steps_done(folder)
    assert set(done) == {(trial, step) for trial in range(TRIALS) for step in range(1, STEPS + 1)}
    assert sum(row["status"] == "finished" for row in saved.values()) >= 4
    for trial, step in done[before:]:
        row = saved.get(trial)
        assert row is None or row["status"] == "running"
        assert row is None or step > (row["checkpoint_step"] or 0)
    ended = {trial for trial, row in saved.items() if row["status"] != "running"}
    cut_off = {trial for trial, _ in done[:before]} - ended
    for trial in range(TRIALS):
        steps = [step for each, step in done if each == trial]
        for one, following in pairwise(steps):
            # It goes on where it last saved: a step it was killed in, and the one before unless that one was saved.
            assert following == one + 1 or trial in cut_off or following >= one - 1

    points = [draw(parse_space(SPACE), seed=3, trial=trial) for trial in range(TRIALS)]
    assert [row["params"] for row in rows] == points
    losses = [(1 - point["x"]) / STEPS for point in points]
    best = min(range(TRIALS), key=losses.__getitem__)
    assert result["best"] == {"params": points[best], "metric": losses[best], "trial": best}
    folders = (folder / "folders").read_text().splitlines()
    assert not [path for path in folders if Path(path).exists()]
