"""A workload uses a Ray that its lease has, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

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
