"""A workload uses a Ray that its lease has, and no other."""

from __future__ import annotations

import subprocess
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from spillway.model import Launcher
from spillway.workloads import own_ray

if TYPE_CHECKING:
    from spillway.runtime import Session

OF_A_JOB = {
    "RAY_ADDRESS": "10.0.0.1:6379",
    "RAY_AUTH_TOKEN": "of the cluster",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "{}",
}


@pytest.fixture(autouse=True)
def _as_a_job_of_a_ray_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_A_JOB.items():
        monkeypatch.setenv(name, value)


def test_a_ray_over_the_lease_is_joined(session: Session) -> None:
    submission = replace(session.submission, launcher=Launcher.RAY)
    assert own_ray.spanning_address(submission) == OF_A_JOB["RAY_ADDRESS"]
    assert OF_A_JOB.items() <= own_ray.environment(joins=True).items()


def test_a_cluster_that_the_lease_is_a_job_of_is_left_alone(session: Session) -> None:
    assert own_ray.spanning_address(session.submission) is None
    variables = own_ray.environment(joins=False)
    assert not {"RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"} & set(variables)
    assert variables["RAY_AUTH_TOKEN"] != OF_A_JOB["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize("slow_starts", [0, 1, 3])
def test_a_ray_that_was_too_slow_for_itself_is_started_again(
    monkeypatch: pytest.MonkeyPatch, slow_starts: int
) -> None:
    """What Ray 2.60 raises after 30 s; its processes of the first time go."""
    ray = pytest.importorskip("ray")
    started: list[subprocess.Popen[bytes]] = []

    def init(**options: object) -> None:
        assert options == {"address": "local", "num_cpus": 2}
        started.append(subprocess.Popen(["/bin/sleep", "1000"]))
        if len(started) <= slow_starts:
            raise Exception("The current node timed out during startup. This could happen ...")  # noqa: TRY002

    monkeypatch.setattr(ray, "init", init)
    expected = pytest.raises(Exception, match="timed out") if slow_starts == 3 else nullcontext()
    try:
        with expected:
            own_ray.start(num_cpus=2)
        assert len(started) == min(slow_starts + 1, 3)
        assert not any(psutil.pid_exists(process.pid) for process in started[:-1])
    finally:
        for process in started:
            process.kill()
            process.wait()
