"""Gangs on this machine: several process groups, one job."""

from __future__ import annotations

from dataclasses import replace
from signal import SIGKILL, SIGSEGV
from typing import TYPE_CHECKING

import pytest

from spillway.backends.local.processes import marked
from spillway.backends.local.supervisor import gang_environments, together
from spillway.checkpoints import latest, open_store
from spillway.model import JobEvent, Launcher
from spillway.runtime.exit_codes import PREEMPTED
from spillway.runtime.gang.membership import membership

if TYPE_CHECKING:
    import psutil

    from conftest import Machine
    from spillway.backends.protocol import Job
    from spillway.model import Submission


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ([0, 0, 0], 0),
        ([0, 3, PREEMPTED], 3),
        ([-SIGSEGV, PREEMPTED], -SIGSEGV),
        ([PREEMPTED, -SIGKILL, PREEMPTED], PREEMPTED),
        ([0, PREEMPTED], PREEMPTED),
        ([-SIGKILL, -SIGKILL], -SIGKILL),
        ([0, -SIGKILL], -SIGKILL),
    ],
)
def test_the_ends_of_all_nodes_are_one_end(codes: list[int], said: int) -> None:
    assert together(codes) == said


def test_each_node_is_told_which_it_is_and_a_single_one_nothing(machine: Machine) -> None:
    submission = machine.submission("succeed")
    assert gang_environments(submission) == [{}]
    told = gang_environments(replace(submission, nodes=3))
    members = [membership(environment, nodes=3) for environment in told]
    assert [member.rank for member in members if member] == [0, 1, 2]
    assert len({environment["SPILLWAY_GANG_SECRET"] for environment in told}) == 1
    (alone,) = gang_environments(replace(submission, launcher=Launcher.TORCHRUN))
    assert alone["SPILLWAY_GANG_NODES"] == "1"


def a_gang(machine: Machine, gate: str) -> Submission:
    return replace(machine.submission("train", steps=1000, gate=gate), nodes=2)


def members(machine: Machine, job: Job) -> list[psutil.Process]:
    """Return the nodes' processes, without the supervisor."""
    return [
        process
        for process in marked(machine.folder(job).mark)
        if "spillway.runtime" in process.cmdline()
    ]


def test_a_gang_taken_back_is_preempted_and_what_it_did_is_kept(machine: Machine) -> None:
    submission = a_gang(machine, gate="/nowhere")
    backend = machine.backend(interruptions={"trace": [[6, 60]], "speed": 1})
    job = backend.submit(submission)
    assert backend.free_slots() == 1
    seen = machine.wait(job)
    assert seen.event is JobEvent.PREEMPTED, machine.folder(job).output.read_text()
    saved = latest(open_store(machine.store), submission.prefix)
    assert saved is not None
    assert saved.manifest.step == 500


def test_a_gang_whose_node_is_killed_is_preempted(machine: Machine) -> None:
    job = machine.backend().submit(a_gang(machine, gate="/nowhere"))
    machine.wait_until_started(job)
    machine.wait_for(lambda: "all 2 members" in machine.folder(job).output.read_text())
    members(machine, job)[1].kill()
    seen = machine.wait(job)
    assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, PREEMPTED)
    assert not members(machine, job)


def test_a_gang_whose_node_fails_has_failed(machine: Machine) -> None:
    submission = replace(machine.submission("raise_an_error"), nodes=3)
    seen = machine.wait(machine.backend().submit(submission))
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, 1)
    assert "the data is not there" in str(machine.result(submission).error)
