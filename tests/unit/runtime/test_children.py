"""What a notice does to the processes that a job has forked, and what those do to the job."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import latest
from spillway.runtime import exit_codes
from spillway.runtime.exchange import read_result

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Lab, Wrappers

PATIENCE_SECONDS = 60


@pytest.mark.parametrize(
    ("number", "variables"),
    [(signal.SIGTERM, {}), (signal.SIGUSR1, {"SPILLWAY_NOTICE_SIGNALS": "TERM,USR1"})],
)
def test_workers_of_a_data_loader_live_on_until_the_job_has_saved(
    lab: Lab,
    wrappers: Wrappers,
    tmp_path: Path,
    number: signal.Signals,
    variables: dict[str, str],
) -> None:
    """Every process gets the signal, as from Slurm."""
    at = tmp_path / "at"
    submission = lab.submission(
        "sample_jobs:train_with_workers", arguments={"at": str(at)}, grace_period=lab.LONG
    )
    process = wrappers.start(submission, **variables)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not at.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == exit_codes.PREEMPTED, output
    found = latest(lab.store, "task")
    assert found is not None, output
    assert found.manifest.step == int(at.read_text())


def test_a_child_that_the_job_terminates_ends_and_is_no_notice(
    lab: Lab, wrappers: Wrappers
) -> None:
    ways = ["fork"] * 20 + ["spawn"]
    process = wrappers.start(lab.submission("sample_jobs:end_children", arguments={"ways": ways}))
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    result = read_result(lab.store, "task", 1)
    assert result is not None, output
    assert result.value == {"codes": [-signal.SIGTERM] * len(ways), "preempted": False}
