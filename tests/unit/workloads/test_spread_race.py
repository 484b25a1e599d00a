"""Four processes and one study, in a folder and in a bucket."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest

from spillway.checkpoints import open_store
from spillway.testing.bucket_servers import s3_server
from spillway.workloads import spread
from spillway.workloads.space import draw, parse_space
from spillway.workloads.study_journal import StoreJournal

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 4
TRIALS = 16

_PROGRAM = """
import json, sys
from spillway.runtime import Session
from spillway.workloads import spread
asked = json.loads(sys.argv[1])
print("ready", flush=True)
input()
for number in asked["numbers"]:
    session = Session.local(f"{asked['folder']}/{asked['process']}-{number}")
    spread.trial(session, output=asked["output"], trial=number, **asked["search"])
"""


@pytest.fixture(params=["folder", "s3"])
def output(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    if request.param == "folder":
        yield (tmp_path / "sweep").as_uri()
        return
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.url("sweep")


def race(output: str, folder: Path, search: dict[str, object]) -> None:
    """Let each process do its own share, and trial 0 besides, all from the same moment on."""
    with ExitStack() as stack:
        racers = []
        for process in range(PROCESSES):
            asked = {
                "numbers": [0, *range(process, TRIALS, PROCESSES)],
                "process": process,
                "folder": str(folder),
                "output": output,
                "search": search,
            }
            racer = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(racer.kill)
            racers.append(stack.enter_context(racer))
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            _, errors = racer.communicate(timeout=120)
            assert racer.returncode == 0, errors


def test_no_trial_is_lost_or_doubled(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", here)
    space = {"x": {"uniform": [0, 1]}}
    search: dict[str, object] = {
        "dataset": str(tmp_path),
        "space": space,
        "num_samples": TRIALS,
        "max_steps": 1,
        "metric": "loss",
        "trainable": "trial_samples:falling",
        "seed": 5,
        "scheduler": "none",
    }
    race(output, tmp_path, search)

    rows = spread.read_rows(output)[1]
    drawn = [draw(parse_space(space), seed=5, trial=number) for number in range(TRIALS)]
    assert [row.params for row in rows] == drawn
    assert {(row.status, row.steps) for row in rows} == {("finished", 1)}
    assert [row.metric for row in rows] == [1 - each["x"] for each in drawn]

    storage = optuna.storages.JournalStorage(StoreJournal(open_store(output), "study"))
    trials = optuna.load_study(study_name="sweep", storage=storage).trials
    counted = [trial.user_attrs["trial"] for trial in trials if trial.state.name == "COMPLETE"]
    assert sorted(counted) == list(range(TRIALS))
    doubled = [trial for trial in trials if trial.state.name != "COMPLETE"]
    assert {trial.user_attrs["trial"] for trial in doubled} <= {0}  # begun by all at once
    assert {trial.state.name for trial in doubled} <= {"FAIL"}
