from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spillway.checkpoints import FolderStore
from spillway.errors import SpecError, StoreError
from spillway.model.codec import encode_json
from spillway.runtime import exit_codes
from spillway.runtime.entry_point import load
from spillway.runtime.exchange import (
    MAX_RESULT_BYTES,
    Outcome,
    Result,
    read_heartbeat,
    read_result,
)
from spillway.runtime.log_tail import LogTail
from spillway.runtime.run import MAX_VALUE_BYTES, check_result, run
from spillway.testing.stores import MemoryStore

if TYPE_CHECKING:
    from conftest import Lab, Wrappers
    from spillway.checkpoints.store import BytesLike

ENTRY_POINTS = Path(__file__).parents[2] / "entry_points"


def run_here(lab: Lab, entry_point: str, **arguments: Any) -> tuple[int, Result]:
    submission = lab.submission(entry_point, arguments=arguments)
    code = run(submission, lab.store, scratch=lab.folder, notice=lab.notice, clock=lab.clock)
    result = read_result(lab.store, "task", 1)
    assert result is not None
    return code, result


def test_what_the_entry_point_returns_is_kept(lab: Lab) -> None:
    code, result = run_here(lab, "sample_jobs:echo", text="ä", numbers=[1, 2.5, None])
    assert code == exit_codes.SUCCEEDED
    assert result.outcome is Outcome.SUCCEEDED
    assert result.value == {"text": "ä", "numbers": [1, 2.5, None]}
    heartbeat = read_heartbeat(lab.store, "task", 1)
    assert heartbeat is not None


def test_an_exception_is_kept_with_where_it_came_from(lab: Lab) -> None:
    code, result = run_here(lab, "sample_jobs:raise_an_error")
    assert code == exit_codes.FAILED
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert (result.error.type, result.error.message) == ("ValueError", "the data is not there")
    assert "in raise_an_error" in result.error.traceback


@pytest.mark.parametrize("message", ["x", "\0", "x\n", "ä"])
def test_a_message_without_end_is_cut_and_leaves_where_it_came_from(lab: Lab, message: str) -> None:
    code, result = run_here(lab, "sample_jobs:raise_much", message=message, times=2_000_000)
    assert code == exit_codes.FAILED
    (path,) = lab.store.list("task/results")
    assert len(lab.store.get(path) or b"") < MAX_RESULT_BYTES
    assert result.error is not None
    assert result.error.message.startswith(message)
    assert "\n" in message or "in raise_much" in result.error.traceback


def test_text_that_is_no_unicode_hides_neither_the_result_nor_the_heartbeat(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "spillway.runtime")  # a test's own report has to be Unicode
    log_tail = LogTail()
    log_tail.write("reading \udcff\n")  # how Python has a file's name that is no UTF-8
    submission = lab.submission(
        "sample_jobs:raise_much", arguments={"message": "\udcff", "times": 1}
    )
    run(
        submission,
        lab.store,
        scratch=lab.folder,
        notice=lab.notice,
        clock=lab.clock,
        log_tail=log_tail,
    )
    result, heartbeat = read_result(lab.store, "task", 1), read_heartbeat(lab.store, "task", 1)
    assert result is not None
    assert result.error is not None
    assert (result.error.message, result.log_tail) == ("\\udcff", "reading \\udcff")
    assert result.error.traceback.endswith("ValueError: \\udcff")
    assert heartbeat is not None
    assert heartbeat.log_tail == "reading \\udcff"


def test_a_result_that_no_job_of_ours_has_written_is_not_taken(lab: Lab) -> None:
    run_here(lab, "sample_jobs:succeed")
    (path,) = lab.store.list("task/results")
    lab.store.put(path, b" " * MAX_RESULT_BYTES + (lab.store.get(path) or b""))
    with pytest.raises(StoreError, match=r"results/.* bytes, and the result of a job has"):
        read_result(lab.store, "task", 1)


def test_a_job_that_says_nothing_of_its_progress_is_seen_to_be_alive(lab: Lab) -> None:
    code, result = run_here(lab, "sample_jobs:wait_until_seen")
    assert (code, result.value) == (exit_codes.SUCCEEDED, None)


def test_a_preemption_has_an_exit_code_of_its_own(lab: Lab) -> None:
    lab.notice.receive()
    code, result = run_here(lab, "sample_jobs:train", steps=10)
    assert code == exit_codes.PREEMPTED == os.EX_TEMPFAIL
    assert (result.outcome, result.error) == (Outcome.PREEMPTED, None)


def test_what_breaks_after_the_notice_is_the_preemption(lab: Lab) -> None:
    lab.notice.receive()
    code, result = run_here(lab, "sample_jobs:raise_an_error")
    assert code == exit_codes.PREEMPTED
    assert result.outcome is Outcome.PREEMPTED
    assert result.error is not None  # but it is kept


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        ("nonsense", "package.module:function"),
        ("no_such_module:train", "no_such_module.*install it"),
        ("sample_jobs:no_such_function", "no 'no_such_function'; correct the name"),
        ("sample_jobs:NOT_A_FUNCTION", "is a int and cannot be called; name a function"),
        ("sample_jobs:takes_two", "missing a required argument: 'first'"),
    ],
)
def test_a_bad_entry_point_fails_for_good_and_says_what_to_do(
    lab: Lab, entry_point: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        load(entry_point, {})
    code, result = run_here(lab, entry_point)
    assert code == exit_codes.BAD_ENTRY_POINT == os.EX_USAGE
    assert result.error is not None
    assert result.error.type == "SpecError"


def test_an_argument_too_many_is_named(lab: Lab) -> None:
    with pytest.raises(SpecError, match="unexpected keyword argument 'last'"):
        load("sample_jobs:takes_two", {"first": 1, "last": 3})


def test_a_module_that_breaks_while_it_is_imported_says_how(lab: Lab) -> None:
    (lab.folder / "breaks.py").write_text("import sys\nraise RuntimeError('no driver')\n")
    sys.path.insert(0, str(lab.folder))
    try:
        with pytest.raises(
            SpecError, match=r"'breaks' does not import \(RuntimeError: no driver\)"
        ):
            load("breaks:train", {})
    finally:
        sys.path.remove(str(lab.folder))


def test_a_module_that_exits_while_it_is_imported_is_no_success(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.folder / "program.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(str(lab.folder))
    code, result = run_here(lab, "program:main")
    assert code == exit_codes.BAD_ENTRY_POINT
    assert result.error is not None
    assert "'program' exits with 0 when it is imported; put what" in result.error.message


@pytest.mark.parametrize("value", [object(), {"a": {1}}, float("nan"), b"bytes", "\udcff"])
def test_a_result_that_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match="not JSON"):
        check_result(value)


def test_a_result_that_is_too_large_is_refused() -> None:
    assert check_result("x" * (MAX_VALUE_BYTES - 2))
    with pytest.raises(SpecError, match="write it to a file"):
        check_result("x" * MAX_VALUE_BYTES)


def test_a_result_is_what_json_makes_of_it() -> None:
    assert check_result({1: (2, 3)}) == {"1": [2, 3]}


class FullStore(MemoryStore):
    """Takes everything but results."""

    def put(self, path: str, data: BytesLike) -> None:
        if "/results/" in path:
            raise StoreError("full")
        super().put(path, data)


def test_a_result_that_cannot_be_written_is_no_success(lab: Lab) -> None:
    with pytest.raises(StoreError, match="full"):
        run(lab.submission(), FullStore(), scratch=lab.folder, notice=lab.notice, clock=lab.clock)


def test_a_preemption_whose_result_cannot_be_written_is_one_all_the_same(lab: Lab) -> None:
    lab.notice.receive()
    submission = lab.submission("sample_jobs:train", arguments={"steps": 10})
    code = run(submission, FullStore(), scratch=lab.folder, notice=lab.notice, clock=lab.clock)
    assert code == exit_codes.PREEMPTED


def test_the_wrapper_takes_a_submission_from_a_file_or_the_environment(
    lab: Lab, wrappers: Wrappers
) -> None:
    submission = lab.submission("sample_jobs:echo", arguments={"a": 1})
    file = lab.folder / "submission.json"
    file.write_bytes(encode_json(submission))
    for process in (
        wrappers.start(None, str(file)),
        wrappers.start(submission),
    ):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == exit_codes.SUCCEEDED, output
    result = read_result(FolderStore(lab.folder / "store"), "task", 1)
    assert result is not None
    assert result.value == {"a": 1}


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        ([], {}),
        (["/no/such/file"], {}),
        ([], {"SPILLWAY_SUBMISSION": "{}"}),
        ([], {"SPILLWAY_SUBMISSION": "not JSON"}),
    ],
    ids=["nothing", "no file", "no submission", "no JSON"],
)
def test_without_a_submission_it_fails_for_good(
    wrappers: Wrappers, arguments: list[str], variables: dict[str, str]
) -> None:
    process = wrappers.start(None, *arguments, **variables)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.BAD_ENTRY_POINT
    assert "nothing to run" in output


def test_a_store_that_does_not_work_is_a_failure_that_says_so(lab: Lab, wrappers: Wrappers) -> None:
    (lab.folder / "file").write_text("")
    url = (lab.folder / "file" / "store").as_uri()
    process = wrappers.start(lab.submission(store=url))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.FAILED
    assert "a file stands where a folder is needed" in output


def test_a_url_that_names_no_store_fails_for_good(lab: Lab, wrappers: Wrappers) -> None:
    process = wrappers.start(lab.submission(store="ftp://somewhere/else"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.BAD_ENTRY_POINT
    assert "its scheme is not one of az://, file://, gs://, s3://" in output


def test_a_scratch_folder_that_cannot_be_removed_changes_no_exit_code(
    lab: Lab, wrappers: Wrappers
) -> None:
    process = wrappers.start(
        lab.submission("sample_jobs:move_scratch", arguments={"to": str(lab.folder / "moved")})
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.SUCCEEDED, output


def test_sigterm_is_a_notice_after_which_training_goes_on_from_its_step(
    lab: Lab, wrappers: Wrappers
) -> None:
    gate = str(lab.folder / "gate")
    arguments = {"steps": 10, "gate": gate}
    patient = timedelta(minutes=1)  # on a busy machine, a second may be over before it has saved
    first = lab.submission("sample_jobs:train", arguments=arguments, grace_period=patient)
    process = wrappers.start(first)
    deadline = time.monotonic() + 60
    while not ((seen := read_heartbeat(lab.store, "task", 1)) and seen.step):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.PREEMPTED, output

    Path(gate).touch()
    second = lab.submission("sample_jobs:train", token=2, arguments=arguments)
    process = wrappers.start(second)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.SUCCEEDED, output
    result = read_result(lab.store, "task", 2)
    assert result is not None
    assert result.value == {"total": sum(range(11)), "first": 6}


def test_a_damaged_checkpoint_is_passed_over_and_the_log_says_so(
    lab: Lab, wrappers: Wrappers
) -> None:
    session = lab.session(entry_point="sample_jobs:train")
    session.checkpoint(3, {"total": 6})
    session.checkpoint(5, {"total": 15})
    part = next(path for path in lab.store.list("task/parts") if "-000000000005/" in path)
    lab.store.put(part, b"flipped")
    second = lab.submission("sample_jobs:train", token=2, arguments={"steps": 10})
    process = wrappers.start(second)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == exit_codes.SUCCEEDED, output
    assert "2 steps are lost" in output
    result = read_result(lab.store, "task", 2)
    assert result is not None
    assert result.value == {"total": sum(range(11)), "first": 4}


def test_the_runtime_imports_neither_airflow_nor_a_database() -> None:
    code = (
        "import json, sys; import spillway.runtime.__main__, spillway.runtime.run;"
        "print(json.dumps([m for m in ('airflow', 'sqlalchemy', 'torch', 'numpy') if m in sys.modules]))"
    )
    seen = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert json.loads(seen.stdout) == []
