"""What happens to jobs of the local backend when processes die, hang, or are mistaken for others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psutil
import pytest

from spillway.backends.local.processes import identify, is_alive
from spillway.checkpoints import open_store
from spillway.errors import CapacityError, TransientError
from spillway.model import JobEvent
from spillway.model.codec import encode_json
from spillway.runtime.exchange import Outcome, read_heartbeat
from spillway.runtime.exit_codes import BAD_ENTRY_POINT, PREEMPTED
from spillway.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Machine
    from spillway.backends.protocol import Job
    from spillway.model import Submission

SUBMIT = """
import sys
from pathlib import Path
from spillway.backends.local.backend import LocalBackend
from spillway.model import Pool, Submission
from spillway.model.codec import decode_json
home, pool, submission = map(Path, sys.argv[1:])
backend = LocalBackend(decode_json(pool.read_text(), Pool), home=home)
request = decode_json(submission.read_text(), Submission)
print("ready", flush=True)
sys.stdin.readline()
backend.submit(request)
"""


def start_submitter(
    machine: Machine, submission: Submission, folder: Path
) -> subprocess.Popen[str]:
    (folder / "pool.json").write_bytes(encode_json(machine.pool()))
    (folder / "submission.json").write_bytes(encode_json(submission))
    files = [machine.home, folder / "pool.json", folder / "submission.json"]
    process = subprocess.Popen(
        [sys.executable, "-c", SUBMIT, *map(str, files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def job_process(machine: Machine, job: Job) -> psutil.Process:
    identity = machine.folder(job).read_process()
    assert identity is not None
    return psutil.Process(identity.pid)


def kill_supervisor(machine: Machine, job: Job) -> None:
    supervisor = job_process(machine, job).parent()
    assert supervisor is not None
    assert "spillway.backends.local.supervisor" in supervisor.cmdline()
    supervisor.kill()
    supervisor.wait(10)


def test_a_job_outlives_the_process_that_submitted_it(machine: Machine, tmp_path: Path) -> None:
    submission = machine.submission("run_on")
    submitter = start_submitter(machine, submission, tmp_path)
    submitter.communicate("go\n")
    assert submitter.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(submitter.pid, 0)  # nothing is left in its group or session
    (job,) = machine.backend().list_jobs()
    assert job.key == submission.key
    machine.wait_until_started(job)


def test_a_key_submitted_by_several_processes_at_once_starts_one_job(
    machine: Machine, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    submission = machine.submission("count_starts", path=str(starts))
    submitters = [start_submitter(machine, submission, tmp_path) for _ in range(4)]
    for submitter in submitters:
        assert submitter.stdin is not None
        submitter.stdin.write("go\n")
        submitter.stdin.flush()
    assert [submitter.wait(60) for submitter in submitters] == [0] * 4
    for submitter in submitters:
        submitter.communicate()
    (job,) = machine.backend().list_jobs()
    deadline = time.monotonic() + 60
    while not (starts.exists() and starts.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    machine.backend().release(job)
    assert len(starts.read_text().split()) == 1


@pytest.mark.parametrize("step", ["folder", "submission", "launch"])
def test_a_submit_that_died_half_way_is_taken_up_by_the_next(machine: Machine, step: str) -> None:
    submission = machine.submission("succeed")
    backend = machine.backend()
    model = backend.submit(machine.submission("succeed"))
    machine.wait(model)
    launch = machine.folder(model).read_launch()
    assert launch is not None
    folder = machine.folder(replace(model, key=submission.key))
    folder.path.mkdir(parents=True)
    if step != "folder":
        folder.write(submission)
    if step == "launch":
        folder.write(launch)
    job = backend.submit(submission)
    assert machine.wait(job).event is JobEvent.SUCCEEDED


def test_a_job_goes_on_without_its_supervisor_and_then_has_vanished(machine: Machine) -> None:
    backend = machine.backend()
    submission = machine.submission("run_on")
    job = backend.submit(submission)
    machine.wait_until_started(job)
    kill_supervisor(machine, job)
    assert backend.observe([job])[job.key].event is JobEvent.STARTED
    assert backend.submit(submission) == job
    assert backend.list_jobs() == [job]
    job_process(machine, job).kill()
    assert machine.wait(job).event is JobEvent.VANISHED
    assert backend.list_jobs() == []
    assert backend.submit(submission) == job  # it has run once, and does not run again
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED


def test_a_job_without_its_supervisor_can_be_released(machine: Machine) -> None:
    backend = machine.backend()
    job = backend.submit(machine.submission("run_on"))
    machine.wait_until_started(job)
    process = job_process(machine, job)
    kill_supervisor(machine, job)
    backend.release(job)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED


def test_a_pid_used_again_is_never_taken_for_ours(machine: Machine) -> None:
    backend = machine.backend()
    job = backend.submit(machine.submission("run_on"))
    machine.wait_until_started(job)
    process = job_process(machine, job)
    kill_supervisor(machine, job)
    process.kill()
    machine.wait(job)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        earlier = identify(bystander.pid).started_at - 3600
        machine.folder(job).write(replace(identify(bystander.pid), started_at=earlier))
        assert backend.observe([job])[job.key].event is JobEvent.VANISHED
        backend.release(job)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_process_that_only_waits_to_be_collected_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = identify(child.pid)
    assert is_alive(identity)
    child.kill()
    psutil.wait_procs([psutil.Process(child.pid)], timeout=0)
    deadline = time.monotonic() + 30
    while is_alive(identity):
        assert time.monotonic() < deadline
    child.communicate()
    assert not is_alive(identity)


def test_training_that_is_preempted_goes_on_from_the_step_it_had(
    machine: Machine, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    spot = machine.backend(interruptions={"trace": [[4, 3600]]})
    first = machine.submission("train", token=1, steps=40, gate=str(gate))
    seen = machine.wait(spot.submit(first))
    assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, PREEMPTED)
    assert machine.result(first).outcome is Outcome.PREEMPTED
    last_words = read_heartbeat(open_store(first.store), first.prefix, first.token)
    assert last_words is not None
    assert last_words.checkpoint_step == 20
    with pytest.raises(CapacityError):
        spot.submit(machine.submission("train", token=2, steps=40))

    gate.touch()
    second = machine.submission("train", token=2, steps=40, gate=str(gate))
    assert machine.wait(machine.backend().submit(second)).event is JobEvent.SUCCEEDED
    assert machine.result(second).value == {"total": sum(range(41)), "first": 21}


def test_a_job_that_ignores_the_notice_is_killed_after_the_grace_period(machine: Machine) -> None:
    spot = machine.backend(interruptions={"trace": [[3, 3600]]})
    job = spot.submit(machine.submission("ignore_everything"))
    seen = machine.wait(job)
    assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, -signal.SIGKILL)


def test_release_stops_every_descendant_whatever_session_it_is_in(
    machine: Machine, tmp_path: Path
) -> None:
    backend = machine.backend()
    pids = tmp_path / "pids"
    job = backend.submit(machine.submission("run_on_with_children", pids=str(pids)))
    deadline = time.monotonic() + 60
    while not pids.exists() or len(pids.read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    began = time.monotonic()
    backend.release(job)
    assert time.monotonic() - began < 10
    assert not any(
        child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children
    )
    assert backend.list_jobs() == []
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED


def test_what_a_job_leaves_running_ends_with_it(machine: Machine, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    job = machine.backend().submit(machine.submission("leave_a_child_behind", pids=str(pids)))
    assert machine.wait(job).event is JobEvent.SUCCEEDED
    assert not psutil.pid_exists(int(pids.read_text())) or (
        psutil.Process(int(pids.read_text())).status() == psutil.STATUS_ZOMBIE
    )


def test_a_job_gets_none_of_the_schedulers_settings(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://secret")
    monkeypatch.setenv("AIRFLOW_CONN_SPILLWAY", "secret")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    submission = machine.submission("show_environment")
    machine.wait(machine.backend(env={"GREETING": "hello"}).submit(submission))
    environment = machine.result(submission).value
    assert isinstance(environment, dict)
    assert "secret" not in str(environment)
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["GREETING"] == "hello"


def test_an_entry_point_that_does_not_import_fails_for_good_and_says_why(machine: Machine) -> None:
    submission = replace(machine.submission("x"), entry_point="no_such_module:train")
    seen = machine.wait(machine.backend().submit(submission))
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, BAD_ENTRY_POINT)
    error = machine.result(submission).error
    assert error is not None
    assert "no_such_module" in error.message
    assert "python_path" in error.message


def test_the_pools_clock_begins_with_its_first_job_and_is_the_same_for_every_process(
    machine: Machine,
) -> None:
    clock = ManualClock()
    trace = {"trace": [[10, 10]]}
    assert machine.backend(clock, interruptions=trace).free_slots() == 3
    clock.advance(timedelta(seconds=11))
    backend = machine.backend(clock, interruptions=trace)
    assert backend.free_slots() == 3, "asking begins no clock"
    backend.release(backend.submit(machine.submission("run_on")))
    clock.advance(timedelta(seconds=11))
    assert machine.backend(clock, interruptions=trace).free_slots() == 0
    clock.advance(timedelta(seconds=10))
    assert machine.backend(clock, interruptions=trace).free_slots() == 3


def test_a_pool_whose_folder_cannot_be_used_says_nothing_of_its_jobs(
    machine: Machine, tmp_path: Path
) -> None:
    backend = machine.backend()
    job = backend.submit(machine.submission("run_on"))
    machine.home.rename(tmp_path / "away")
    machine.home.write_text("a file in its place")
    with pytest.raises(TransientError, match="writable"):
        backend.observe([job])
    with pytest.raises(TransientError):
        backend.submit(machine.submission("succeed"))
    machine.home.unlink()
    (tmp_path / "away").rename(machine.home)
    machine.wait_until_started(job)


def test_a_job_that_ended_long_ago_is_forgotten(machine: Machine) -> None:
    backend = machine.backend()
    old = backend.submit(machine.submission("succeed"))
    machine.wait(old)
    later = ManualClock(datetime.now(UTC) + timedelta(days=6))
    recent = machine.backend(later).submit(machine.submission("succeed"))
    machine.wait(recent)
    assert backend.observe([old])[old.key].event is JobEvent.SUCCEEDED
    later.advance(timedelta(days=2))
    machine.backend(later).submit(machine.submission("succeed"))
    assert not machine.folder(old).path.exists()
    assert backend.observe([old])[old.key].event is JobEvent.VANISHED
