"""A Ray cluster that loses nodes: a worker is one less, the head is the end of this attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil
import pytest

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


def ray_processes(machines: Machines) -> list[int]:
    """Return the processes of Ray that these members started and that are still there."""
    mine = str(machines.short_folder())
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_TMPDIR") == mine:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def lose_machine(member: subprocess.Popen[bytes]) -> None:
    """Kill the member and everything it started, at once."""
    family = psutil.Process(member.pid).children(recursive=True)
    member.kill()
    for process in family:
        process.kill()


def test_the_end_of_ray_on_the_only_node_is_a_preemption(machines: Machines) -> None:
    run_tasks(machines, 1, count=10_000)
    machines.wait_for(lambda: places(machines), "work")
    family = psutil.Process(machines.members[0].pid).children(recursive=True)
    next(process for process in family if process.name() == "gcs_server").kill()
    assert machines.codes() == [PREEMPTED], machines.logs()


@pytest.mark.timeout(900)
def test_a_sweep_goes_on_without_a_worker_and_elsewhere_without_its_head(
    machines: Machines,
) -> None:
    """What a machine that is lost had in its own files is not needed."""
    trials, steps = 5, 12

    def start(token: int) -> None:
        arguments: dict[str, Any] = {
            "folder": str(machines.meeting),
            "trials": trials,
            "steps": steps,
        }
        submission = machines.submission(
            "",
            2,
            entry_point="ray_jobs:search",
            arguments=arguments,
            launcher=Launcher.RAY,
            resources=Resources(cpus=1),
            grace_period=timedelta(seconds=6),
            checkpoint_interval=timedelta(milliseconds=1),
            token=token,
        )
        machines.start(submission, RAY_TMPDIR=str(machines.short_folder()), **SETTINGS)

    def done() -> list[tuple[int, int, int]]:
        file = machines.meeting / "steps"
        lines = file.read_text().splitlines() if file.exists() else []
        return [tuple(map(int, line.split())) for line in lines if line.count(" ") == 2]

    start(1)
    machines.wait_for(lambda: len({trial for trial, _, _ in done()}) > 2, "a trial at its end")
    lose_machine(machines.members[0])
    assert machines.codes() == [KILLED, PREEMPTED], machines.logs()

    before = done()
    (machines.meeting / "hold").touch()
    start(2)
    worker = psutil.Process(machines.members[1].pid)
    machines.wait_for(
        lambda: (
            {place for _, _, place in done()}
            & {each.pid for each in worker.children(recursive=True)}
        ),
        "work on the worker",
    )
    lose_machine(machines.members[1])
    (machines.meeting / "hold").unlink()
    assert machines.codes() == [0, KILLED], machines.logs()

    rows = machines.result(token=2).value["trials"]
    assert [(row["status"], row["steps"]) for row in rows] == [("finished", steps)] * trials
    counted = [(trial, step) for trial, step, _ in done()]
    assert set(counted) == {(t, s) for t in range(trials) for s in range(1, steps + 1)}
    ended = {trial for trial, step, _ in before if step == steps}
    assert len(ended) >= 1
    # Three trials at most were cut off by the loss of the head, and one by that of the worker, at most two steps after a save.
    assert len(counted) <= trials * steps + 4 * 2
    left = [path for path in machines.store.list("gang") if "/trials/" in path]
    assert left == []
    assert ray_processes(machines) == []
