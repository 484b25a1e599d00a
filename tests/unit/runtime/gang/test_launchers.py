"""`torchrun` and Ray across the members of a gang, for real."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from spillway.checkpoints import latest
from spillway.model import Launcher, Resources
from spillway.runtime.exit_codes import PREEMPTED
from spillway.runtime.gang.torchrun import judge

if TYPE_CHECKING:
    from conftest import Machines
    from spillway.model import Submission


@pytest.mark.parametrize(
    ("codes", "left", "noticed", "said"),
    [
        ([0, 0], 0, False, 0),
        ([75, 75], 1, False, PREEMPTED),
        ([75, 1], 1, False, 1),
        ([64], 1, False, 64),
        ([], 1, False, 1),  # killed before it could say a word
        ([], 1, True, PREEMPTED),
    ],
)
def test_a_node_s_end_is_what_its_workers_say(
    codes: list[int], left: int, noticed: bool, said: int
) -> None:
    assert judge(codes, left=left, noticed=noticed) == said


def training(machines: Machines, nodes: int, **facts: Any) -> Submission:
    return dataclasses.replace(
        machines.submission("", nodes),
        entry_point="gang_training:sum_gradients",
        launcher=Launcher.TORCHRUN,
        **facts,
    )


def test_torchrun_over_two_nodes_gives_what_one_process_does_and_resumes(
    machines: Machines,
) -> None:
    """One process for all steps; then two nodes, stopped after four of them by a notice to one, that go on."""
    alone = training(machines, 1, arguments={"steps": 8}, token=1, prefix="alone")
    machines.start(alone)
    assert machines.codes() == [0], machines.logs()
    expected = machines.result(prefix="alone").value
    stopped = training(machines, 2, arguments={"steps": 8, "stop_after": 4}, token=1)
    machines.start(stopped)
    assert machines.codes() == [PREEMPTED, PREEMPTED], machines.logs()
    saved = latest(machines.store, "gang")
    assert saved is not None
    assert saved.manifest.step == 4
    machines.start(training(machines, 2, arguments={"steps": 8}, token=2))
    assert machines.codes() == [0, 0], machines.logs()
    assert isinstance(expected, dict)
    assert machines.result(token=2).value == {**expected, "ranks": 2, "begun": 4}


def test_ray_spans_the_members_and_leaves_nothing_behind(machines: Machines) -> None:
    submission = dataclasses.replace(
        machines.submission("", 2),
        entry_point="gang_training:count_nodes",
        launcher=Launcher.RAY,
        resources=Resources(cpus=1),
    )
    machines.start(submission, RAY_TMPDIR=str(machines.short_folder()))
    assert machines.codes() == [0, 0], machines.logs()
    assert machines.result().value == {"nodes": 2, "places": 2, "members": 2}
    assert not ray_processes(machines)


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
