"""A Ray cluster that loses nodes: a worker is one less, the head is the end of this attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil

from spillway.model import Launcher, Resources
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    import subprocess

    from conftest import Machines

KILLED = -9
# Ray takes about 16 s to notice a lost node, unless it is told to look more often.
SETTINGS = {"RAY_health_check_period_ms": "500", "RAY_health_check_initial_delay_ms": "1000"}


def run_tasks(machines: Machines, nodes: int, count: int) -> None:
    arguments: dict[str, Any] = {"folder": str(machines.meeting), "count": count}
    submission = machines.submission(
        "",
        nodes,
        entry_point="ray_jobs:run_tasks",
        arguments=arguments,
        launcher=Launcher.RAY,
        resources=Resources(cpus=1),
        grace_period=timedelta(seconds=6),
    )
    machines.start(submission, RAY_TMPDIR=str(machines.short_folder()), **SETTINGS)


def places(machines: Machines) -> set[str]:
    return {file.read_text() for file in machines.meeting.glob("done-*")} - {""}


def lose_machine(member: subprocess.Popen[bytes]) -> None:
    """Kill the member and everything it started, at once."""
    family = psutil.Process(member.pid).children(recursive=True)
    member.kill()
    for process in family:
        process.kill()


def test_a_lost_worker_is_one_node_less_and_the_work_goes_on(machines: Machines) -> None:
    run_tasks(machines, 2, count=30)
    machines.wait_for(lambda: len(places(machines)) == 2, "work on both")
    lose_machine(machines.members[1])
    assert machines.codes() == [0, KILLED], machines.logs()
    assert machines.result().value == {"tasks": 30, "nodes": 2}


def test_a_lost_head_is_a_preemption(machines: Machines) -> None:
    run_tasks(machines, 2, count=10_000)
    machines.wait_for(lambda: len(places(machines)) == 2, "work on both")
    lose_machine(machines.members[0])
    assert machines.codes() == [KILLED, PREEMPTED], machines.logs()


def test_the_end_of_ray_on_the_only_node_is_a_preemption(machines: Machines) -> None:
    run_tasks(machines, 1, count=10_000)
    machines.wait_for(lambda: places(machines), "work")
    family = psutil.Process(machines.members[0].pid).children(recursive=True)
    next(process for process in family if process.name() == "gcs_server").kill()
    assert machines.codes() == [PREEMPTED], machines.logs()
