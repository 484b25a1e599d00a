"""Every way in which a cluster, or the road to it, can say no."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import paramiko
import pytest
from paramiko import ssh_exception

from spillway.backends.protocol import Connection, Job
from spillway.backends.slurm import failures, naming, shells
from spillway.backends.slurm.backend import SlurmBackend
from spillway.backends.slurm.command_line import CommandLine
from spillway.backends.slurm.options import SlurmOptions
from spillway.backends.slurm.rest import RestClient
from spillway.backends.slurm.shells import Completed, LocalShell
from spillway.errors import (
    AccessError,
    BackendError,
    CapacityError,
    RejectedError,
    TransientError,
)
from spillway.model import JobEvent, Market, Pool, Resources, Submission
from vendors import exceptions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OPTIONS = SlurmOptions(folder="/shared", partition="scavenge")
REST = Connection(host="http://slurm.example", login="spillway", password="a token")
POOL = Pool(
    name="colossus",
    backend="slurm",
    market=Market.PARTNER,
    slots=2,
    shape=Resources(),
    list_usd_per_hour=Decimal(1),
    options={"folder": "/shared"},
)
SUBMISSION = Submission(
    key="dag/run/task/-1/1",
    pool="colossus",
    token=7,
    entry_point="training:train",
    arguments={},
    resources=Resources(),
    store="s3://bucket/checkpoints",
    prefix="dag/task",
    grace_period=timedelta(seconds=30),
)


@pytest.mark.parametrize("kind", exceptions_of(ssh_exception), ids=lambda kind: kind.__name__)
def test_every_exception_of_paramiko_is_translated(kind: type[Exception]) -> None:
    assert issubclass(kind, shells.FAILED)


def test_what_a_person_must_put_right_is_told_from_what_passes() -> None:
    connection = Connection(host="login.example", login="spillway")
    key = paramiko.ECDSAKey.generate()
    lasting = [
        paramiko.AuthenticationException("no"),
        paramiko.BadAuthenticationType("no", ["publickey"]),
        paramiko.PasswordRequiredException("no"),
        paramiko.BadHostKeyException("login.example", key, key),
        shells.UnknownHostError("no"),
    ]
    passing = [socket.gaierror(-2, "Name or service not known"), EOFError(), TimeoutError()]
    passing += [paramiko.SSHException("Error reading SSH protocol banner"), ConnectionResetError()]
    assert {type(shells.explain(error, connection)) for error in lasting} == {AccessError}
    assert {type(shells.explain(error, connection)) for error in passing} == {TransientError}


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("Invalid partition name specified", RejectedError, "option partition"),
        ("Requested node configuration is not available", RejectedError, "no node"),
        ("Invalid account or account/partition combination specified", AccessError, "account"),
        ("Invalid qos specification", AccessError, "option qos"),
        ("User's group not permitted to use this partition", AccessError, "AllowGroups"),
        (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            CapacityError,
            "limit",
        ),
        ("Unable to contact slurm controller (connect failure)", TransientError, "later"),
        ("Slurm temporarily unable to accept job, sleeping and retrying", TransientError, "later"),
    ],
    ids=str,
)
def test_what_sbatch_says_is_sorted_by_what_to_do(
    said: str, kind: type[BackendError], words: str
) -> None:
    text = f"sbatch: error: Batch job submission failed: {said}"
    error = failures.by_text(text, otherwise=RejectedError, key="a key")
    assert type(error) is kind
    assert words in str(error)
    assert (error.backend, error.key) == ("slurm", "a key")


def test_an_error_that_is_not_listed_is_what_the_caller_takes_it_for() -> None:
    assert type(failures.by_text("?", otherwise=RejectedError)) is RejectedError
    assert type(failures.by_number(4711, "?", otherwise=TransientError)) is TransientError


def test_no_text_of_an_error_is_part_of_another() -> None:
    texts = [text for text, _, _ in failures.ERRORS.values()]
    assert not [(one, two) for one in texts for two in texts if one != two and one in two]


# ---- the REST API -----------------------------------------------------------------------------------------------


def rest(answer: Callable[[httpx.Request], httpx.Response], **changes: Any) -> RestClient:
    connection = Connection(host=REST.host, login=REST.login, password=changes.get("token", "x"))
    return RestClient(connection, OPTIONS, transport=httpx.MockTransport(answer))


def slurm_error(number: int, text: str) -> httpx.Response:
    errors = [{"error_number": number, "error": text, "source": "slurm_load_jobs"}]
    return httpx.Response(500, json={"errors": errors, "jobs": []})


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(401, text="Authentication failure"), AccessError),
        (httpx.Response(404, text="Unable find requested URL"), RejectedError),
        (httpx.Response(429), TransientError),
        (httpx.Response(502, text="<html>"), TransientError),
        (httpx.Response(500, text="<html>"), TransientError),
        (httpx.Response(200, text="<html>a login page"), TransientError),
        (slurm_error(1800, "Unable to contact slurm controller"), TransientError),
        (slurm_error(2002, "Access/permission denied"), AccessError),
    ],
    ids=["no_token", "version", "throttled", "gateway", "broken", "not_json", "down", "denied"],
)
def test_an_answer_is_sorted_by_what_to_do(answer: httpx.Response, kind: type[Exception]) -> None:
    with pytest.raises(kind) as problem:
        rest(lambda _: answer).jobs()
    assert type(problem.value) is kind


def test_how_long_slurmrestd_wants_to_be_left_alone_is_passed_on() -> None:
    with pytest.raises(TransientError) as problem:
        rest(lambda _: httpx.Response(429, headers={"Retry-After": "90"})).jobs()
    assert problem.value.retry_after == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("probe", "kind"),
    [(5005, AccessError), (2017, TransientError), (1800, TransientError)],
    ids=["not_believed", "believed", "down"],
)
def test_an_unspecified_error_is_asked_after(probe: int, kind: type[Exception]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        is_probe = request.method == "DELETE"
        return slurm_error(probe, "x") if is_probe else slurm_error(-1, "Unspecified error")

    with pytest.raises(kind):
        rest(answer).jobs()


def test_a_token_that_says_it_is_over_is_believed() -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1_000_000_000}).encode()).decode()
    token = f"header.{claims.rstrip('=')}.signature"
    with pytest.raises(AccessError, match="has expired") as problem:
        rest(lambda _: slurm_error(-1, "Unspecified error"), token=token).jobs()
    assert token not in str(problem.value)


def test_silence_says_nothing_of_a_job() -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("", request=request)

    with pytest.raises(TransientError, match="ReadTimeout"):
        rest(silent).jobs()


def test_a_job_that_is_over_is_cancelled_without_an_error() -> None:
    rest(lambda _: slurm_error(2021, "Job/step already completing or completed")).cancel([1])
    rest(lambda _: slurm_error(2017, "Invalid job id specified")).cancel([1])


def test_a_slurmrestd_without_accounting_is_asked_for_it_once() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(404, text="Unable find requested URL")

    client = rest(answer)
    assert list(client.past_jobs(["sw-a"])) == list(client.past_jobs(["sw-a"])) == []
    assert asked == ["/slurmdb/v0.0.38/jobs"]


def test_accounting_over_rest_is_asked_by_name() -> None:
    job = {"job_id": 6, "name": "sw-a", "state": {"current": "PREEMPTED"}, "exit_code": {}}

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.query == b"job_name=sw-a%2Csw-b"  # 22.05 refuses a comma
        return httpx.Response(200, json={"errors": [], "jobs": [job, {**job, "name": "other"}]})

    (row,) = rest(answer).past_jobs(["sw-a", "sw-b"])
    assert (row.name, row.state) == ("sw-a", "PREEMPTED")


def test_accounting_that_has_no_such_job_says_so_as_an_error() -> None:
    client = rest(lambda _: slurm_error(9003, "Nothing found"))
    assert list(client.past_jobs(["sw-a"])) == []


def test_a_failure_whose_exit_code_is_not_known_may_have_been_a_preemption() -> None:
    name = naming.job_name(POOL.name, "dag/run/task/-1/1")
    job: dict[str, Any] = {"job_id": 6, "name": name, "state": {"current": "FAILED"}}
    job["exit_code"] = {"status": "SUCCESS", "return_code": 0}  # as 22.05 says of every job
    answers = {"/slurm/v0.0.38/jobs": [], "/slurmdb/v0.0.38/jobs": [job]}
    client = rest(lambda request: httpx.Response(200, json={"jobs": answers[request.url.path]}))
    slurm = SlurmBackend(POOL, home=Path("/home"), client=client)
    seen = slurm.observe([JOB])[JOB.key]
    assert (seen.event, seen.exit_code) == (JobEvent.VANISHED, None)


def test_a_folder_that_is_not_seen_from_here_shows_no_output(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("output")
    blind = rest(lambda _: httpx.Response(200, json={}))
    assert blind.read("/shared/a.log", 0, 100) == b""
    seeing = RestClient(REST, OPTIONS.model_copy(update={"folder_here": str(tmp_path)}))
    assert seeing.read("/shared/a.log", 3, 2) == b"pu"
    assert seeing.read("/shared/b.log", 0, 100) == b""


# ---- the commands -----------------------------------------------------------------------------------------------


class Recorded:
    """A shell that answers as was written down, by the first word of the command that it finds."""

    def __init__(self, **answers: Completed) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def run(self, command: Sequence[str], stdin: bytes = b"") -> Completed:  # noqa: ARG002
        program = next(word for word in command if word in self.answers)
        self.asked.append(program)
        return self.answers[program]


def said(output: str = "", *, errors: str = "", exit_code: int = 0) -> Completed:
    return Completed(exit_code=exit_code, output=output.encode(), errors=errors)


def backend(shell: Recorded) -> SlurmBackend:
    return SlurmBackend(POOL, home=Path("/home"), client=CommandLine(shell, OPTIONS))


NOTHING = said()
DISABLED = said("Slurm accounting storage is disabled\n", exit_code=1)
JOB = Job(key="dag/run/task/-1/1")


def test_a_cluster_without_accounting_says_so_and_the_marks_decide() -> None:
    shell = Recorded(squeue=NOTHING, sacct=DISABLED, bash=NOTHING)
    assert backend(shell).observe([JOB])[JOB.key].event is JobEvent.VANISHED
    assert shell.asked == ["squeue", "sacct", "bash"]


def test_accounting_remembers_what_the_controller_forgot() -> None:
    name = backend(Recorded())._name(JOB)
    sacct = said(f"4|{name}|PREEMPTED|0:0|None|1|2026-11-20T18:51:50\n")
    seen = backend(Recorded(squeue=NOTHING, sacct=sacct, bash=NOTHING)).observe([JOB])
    assert seen[JOB.key].event is JobEvent.PREEMPTED


def test_accounting_that_does_not_answer_says_nothing_of_a_job() -> None:
    down = said(errors="sacct: error: Unable to connect to database", exit_code=1)
    seen = backend(Recorded(squeue=NOTHING, sacct=down)).observe([JOB])[JOB.key]
    assert seen.event is None
    assert "Unable to connect" in seen.detail


def test_a_queue_that_cannot_be_asked_says_nothing_at_all() -> None:
    down = said(errors="slurm_load_jobs error: Unable to contact slurm controller", exit_code=1)
    with pytest.raises(TransientError):
        backend(Recorded(squeue=down)).observe([JOB])


@pytest.mark.parametrize(
    "noise", ["Welcome to the cluster!\n", "a|b|c\n", "1|sw-a|FAILED|?|x|1|x|\n"]
)
def test_what_is_not_an_answer_says_nothing_of_a_job(noise: str) -> None:
    with pytest.raises(TransientError, match="cannot be read"):
        backend(Recorded(squeue=said(noise))).observe([JOB])


def test_an_answer_without_its_fields_says_nothing_of_a_job() -> None:
    with pytest.raises(TransientError, match="cannot be read"):
        rest(lambda _: httpx.Response(200, json={"jobs": [{"name": "sw-a"}]})).jobs()


def test_a_job_that_ran_before_the_controller_forgot_it_is_not_started_again() -> None:
    name = backend(Recorded())._name(JOB)
    shell = Recorded(squeue=NOTHING, sacct=DISABLED, bash=said(f"{name} 12 -\n"))
    assert backend(shell).submit(SUBMISSION) == Job(key=JOB.key, provider_id="12")
    assert "sbatch" not in shell.asked


def test_a_machine_without_slurms_commands_says_what_to_install() -> None:
    absent = said(errors="env: \u2018squeue\u2019: No such file or directory\n", exit_code=127)
    with pytest.raises(AccessError, match="install Slurm's commands"):
        backend(Recorded(squeue=absent)).observe([JOB])


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shells, "TIMEOUT_SECONDS", 0.05)
    with pytest.raises(TransientError, match="did not end"):
        LocalShell().run(["sleep", "5"])
    with pytest.raises(TransientError, match="cannot run"):
        LocalShell().run(["no-such-program-of-slurm"])


def test_a_script_that_began_before_answers_as_it_ended(tmp_path: Path) -> None:
    from spillway.backends.slurm.render import render

    script = render(SUBMISSION, SlurmOptions(folder=str(tmp_path))).script
    name = backend(Recorded())._name(JOB)

    def run() -> int:
        environment = {"SLURM_JOB_ID": "7", "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            ["bash"], input=script.encode(), env=environment, capture_output=True, check=False
        ).returncode

    (tmp_path / f"{name}.began").write_text("6\n")
    assert run() == 75
    (tmp_path / f"{name}.exit").write_text("3\n")
    assert run() == 3


# ---- how often it is asked --------------------------------------------------------------------------------------


def test_a_thousand_jobs_are_one_question() -> None:
    jobs = [Job(key=f"dag/run/task/{index}/1") for index in range(1000)]
    names = [backend(Recorded())._name(job) for job in jobs]
    queue = said("\n".join(f"{n}|{name}|RUNNING|0|None|1|N/A|" for n, name in enumerate(names, 1)))
    shell = Recorded(squeue=queue)
    seen = backend(shell).observe(jobs)
    assert {one.event for one in seen.values()} == {JobEvent.STARTED}
    assert shell.asked == ["squeue"]


def test_room_is_remembered_for_a_moment_and_counted_anew_after_a_submission() -> None:
    sinfo = said("pn1|idle|0/8/0/8|16000|0|(null)|(null)|\n")
    shell = Recorded(squeue=NOTHING, sacct=DISABLED, sinfo=sinfo, bash=said("7\n"))
    one = backend(shell)
    assert [one.free_slots() for _ in range(3)] == [2, 2, 2]
    assert shell.asked == ["squeue", "sinfo"]
    assert one.room_said_at() is not None
    shell.answers["bash"] = said()
    with pytest.raises(TransientError):
        one.submit(SUBMISSION)
    shell.asked.clear()
    one.free_slots()
    assert shell.asked == ["squeue", "sinfo"]


# ---- clocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["commands", "rest"])
@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_wrong_ends_nothing(way: str, hours: int) -> None:
    there = datetime.now(UTC) + timedelta(hours=hours)  # by the cluster's clock, which stamps jobs
    name = naming.job_name(POOL.name, JOB.key)

    def waits_since(submitted: datetime) -> JobEvent | None:
        job = {"job_id": 6, "name": name, "job_state": "PENDING"}
        answers: dict[str, Any] = {
            "jobs": {"jobs": [{**job, "submit_time": int(submitted.timestamp())}]},
            "diag": {"statistics": {"req_time": int(there.timestamp())}},
        }
        row = f"6|{name}|PENDING|0|None|1|{submitted:%Y-%m-%dT%H:%M:%S}\n"
        clients: dict[str, Any] = {
            "commands": CommandLine(
                Recorded(squeue=said(row), date=said(f"{there.timestamp():.0f}\n")), OPTIONS
            ),
            "rest": rest(
                lambda request: httpx.Response(200, json=answers[Path(request.url.path).name])
            ),
        }
        pool = replace(POOL, options={**POOL.options, "start_within": "PT10M"})
        slurm = SlurmBackend(pool, home=Path("/home"), client=clients[way])
        seen = slurm.observe([JOB])[JOB.key]
        assert abs(seen.seen_at - datetime.now(UTC)) < timedelta(minutes=1)  # by our own clock
        return seen.event

    assert waits_since(there - timedelta(minutes=9)) is JobEvent.SUBMITTED
    assert waits_since(there - timedelta(minutes=11)) is JobEvent.PREEMPTED


def test_a_clock_that_nobody_tells_is_taken_for_ours() -> None:
    name = naming.job_name(POOL.name, JOB.key)
    row = said(f"6|{name}|PENDING|0|None|1|{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}\n")
    shell = Recorded(squeue=row, date=said(errors="not here", exit_code=1))
    pool = replace(POOL, options={**POOL.options, "start_within": "PT10M"})
    slurm = SlurmBackend(pool, home=Path("/home"), client=CommandLine(shell, OPTIONS))
    for _ in range(2):
        assert slurm.observe([JOB])[JOB.key].event is JobEvent.SUBMITTED
    assert shell.asked.count("date") == 1
