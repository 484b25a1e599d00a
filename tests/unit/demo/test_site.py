"""A demo has its folder for itself, whatever an earlier one left in it."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from spillway.demo.site import HOME_VARIABLE, MARKER, own_folder
from spillway.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, "")  # so that what is set is taken back


def test_of_two_in_one_folder_the_second_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    with (
        own_folder(home, home / "pools.yaml"),
        pytest.raises(SpecError, match="a demo runs in"),
        own_folder(home, home / "pools.yaml"),
    ):
        pass


def test_what_a_killed_demo_left_is_ended_and_removed(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    (home / "logs").mkdir(parents=True)
    (home / "airflow.db").touch()
    (home / MARKER).touch()
    conf = str(tmp_path / "slurm.conf")
    with ExitStack() as started:
        server, job, other = (
            started.enter_context(
                subprocess.Popen(["sleep", "600"], env={**os.environ, **environment})
            )
            for environment in (
                {HOME_VARIABLE: str(home), "SLURM_CONF": conf},
                {"SLURM_CONF": conf},
                {HOME_VARIABLE: str(tmp_path / "another")},
            )
        )
        started.callback(other.kill)
        with own_folder(home, home / "pools.yaml"):
            assert server.poll() is not None
            assert job.poll() is not None
            assert other.poll() is None
            assert [path.name for path in home.iterdir()] == [MARKER]
