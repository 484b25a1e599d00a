"""What Ray's answers mean: recorded from Ray 2.60."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from spillway.backends.protocol import Connection, Job
from spillway.backends.ray_jobs.backend import RayBackend
from spillway.backends.ray_jobs.capacity import jobs_that_fit, rooms
from spillway.backends.ray_jobs.client import JobsClient
from spillway.backends.ray_jobs.failures import ERROR_TYPES, meaning
from spillway.backends.ray_jobs.options import read_options
from spillway.backends.ray_jobs.parse import EVENTS, observation, row
from spillway.errors import AccessError, BackendError, RejectedError, TransientError
from spillway.model import JobEvent, Resources

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spillway.model import Pool

NOW = datetime(2026, 11, 21, 2, 10, tzinfo=UTC)
LOST = """Job supervisor actor died: The actor died unexpectedly before finishing this task.
\tclass_name: JobSupervisor
\tname: _ray_internal_job_actor_far1
The actor died because its node has died. Node Id: 7a91b1c53f9a722755109ca81971c96411d26abac40e7365db17baee
\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"""
REFUSED = (
    "Failed to start supervisor actor bad1: 'The quantity of resource num_cpus cannot be negative'."
)
UNFETCHED = "runtime_env setup failed: Failed to set up runtime environment."
MONITOR = """2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: c97e0dea) was \
7.72GB used / 23.59GB limit (0.327287)
OOM kill reason: Memory usage 7702683648B exceeded threshold of 7597580800B (30.0% of 25325268992B limit)"""
ADVICE = """863\t1.23\tray::A.f
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest/ray-observability/user-guides/\
debug-apps/debug-memory.html. Consider provisioning more memory on this node or reducing task parallelism"""
EXITED = "Job entrypoint command failed with exit code {code}, last available logs (truncated to 20,000 chars):\n{log}"


def seen(status: str = "FAILED", **facts: Any) -> tuple[JobEvent | None, str]:
    answer = {"submission_id": "sw-1", "status": status, "metadata": None, **facts}
    found = observation(row(answer), NOW, start_within=timedelta(minutes=15))
    return found.event, found.detail


@pytest.mark.parametrize(
    ("error_type", "message", "code", "event"),
    [
        ("JOB_SUPERVISOR_ACTOR_DIED", LOST, None, JobEvent.VANISHED),
        (None, LOST, None, JobEvent.VANISHED),  # of versions without types
        ("RUNTIME_ENV_SETUP_FAILURE", UNFETCHED, None, JobEvent.FAILED),
        ("RUNTIME_ENV_SETUP_FAILURE", LOST, None, JobEvent.VANISHED),
        ("JOB_SUPERVISOR_ACTOR_START_FAILURE", REFUSED, None, JobEvent.FAILED),
        (
            "JOB_SUPERVISOR_ACTOR_START_FAILURE",
            "Unexpected error occurred: failed to get job supervisor.",
            None,
            JobEvent.VANISHED,
        ),
        (
            "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
            "Job supervisor actor failed to start within 900.0 seconds.",
            None,
            JobEvent.PREEMPTED,
        ),
        (
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            EXITED.format(code=3, log="hi"),
            3,
            JobEvent.FAILED,
        ),
        (
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            EXITED.format(code=75, log="hi"),
            75,
            JobEvent.PREEMPTED,
        ),
        (
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            EXITED.format(code=1, log="the node has died, said the user's code"),
            1,
            JobEvent.FAILED,
        ),
        ("A_TYPE_OF_THE_FUTURE", "words", None, JobEvent.FAILED),
    ],
)
def test_a_loss_is_told_from_a_failure(
    error_type: str | None, message: str, code: int | None, event: JobEvent
) -> None:
    assert seen(error_type=error_type, message=message, driver_exit_code=code)[0] is event


@pytest.mark.parametrize(
    ("error_type", "message", "code", "event", "words"),
    [
        (
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            EXITED.format(code=-9, log="hi"),
            -9,
            JobEvent.FAILED,
            "SIGKILL: most likely it ran out of memory",
        ),
        (
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            EXITED.format(code=137, log="hi"),
            137,
            JobEvent.FAILED,
            "SIGKILL: most likely it ran out of memory",
        ),
        (
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            EXITED.format(code=1, log=ADVICE),
            1,
            JobEvent.FAILED,
            "Ray killed workers of it",
        ),
        (
            "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE",
            f"Unexpected error occurred: {MONITOR}",
            None,
            JobEvent.VANISHED,
            "Ray killed the process that watched it",
        ),
        (
            "JOB_ENTRYPOINT_COMMAND_ERROR",
            EXITED.format(code=75, log=ADVICE),
            75,
            JobEvent.PREEMPTED,
            "Ray killed workers of it",
        ),
    ],
)
def test_a_lack_of_memory_is_told_from_other_ends(
    error_type: str, message: str, code: int | None, event: JobEvent, words: str
) -> None:
    """As Ray 2.60 told them: of a killed entry point, of killed workers, of the killed process that watches the job."""
    found, detail = seen(error_type=error_type, message=message, driver_exit_code=code)
    assert (found, words in detail) == (event, True), detail


def test_every_type_of_error_that_ray_knows_has_a_meaning() -> None:
    errors = pytest.importorskip("ray.dashboard.modules.job.common")
    assert {one.value for one in errors.JobErrorType} == set(ERROR_TYPES)
    assert {one.value for one in errors.JobStatus} == set(EVENTS)
    assert all(meaning(name, "") == expected for name, expected in ERROR_TYPES.items())


def test_a_state_that_we_do_not_know_is_not_guessed() -> None:
    assert seen("HIBERNATING")[0] is None


def test_a_job_that_ray_does_not_know_has_vanished() -> None:
    assert observation(None, NOW, start_within=None).event is JobEvent.VANISHED


def test_waiting_for_longer_than_start_within_is_no_capacity_after_all() -> None:
    submitted = NOW.timestamp() * 1000
    assert seen("PENDING", start_time=submitted - 60_000)[0] is JobEvent.SUBMITTED
    assert seen("PENDING", start_time=submitted - 901_000)[0] is JobEvent.PREEMPTED


def test_a_cluster_without_spillway_is_told_what_to_install() -> None:
    message = EXITED.format(code=1, log="python: No module named spillway")
    _, detail = seen(error_type="JOB_ENTRYPOINT_COMMAND_ERROR", message=message, driver_exit_code=1)
    assert "install spillway on the cluster's nodes" in detail


def status(at: datetime = NOW) -> dict[str, Any]:
    usage = {
        "head": {"node:InternalHead": [0.0, 1.0], "memory": [0.0, 8.0 * 2**30], "CPU": [0.4, 4.0]},
        "far": {"memory": [0.0, 64.0 * 2**30], "CPU": [1.0, 16.0], "GPU": [1.0, 4.0]}
        | {"accelerator_type:H100".replace("_t", "T"): [0.001, 1.0], "fastDisk": [0.0, 1.0]},
    }
    report = {"usageByNode": usage}
    return {"data": {"clusterStatus": {"time": at.timestamp(), "loadMetricsReport": report}}}


@pytest.mark.parametrize(
    ("shape", "options", "fit"),
    [
        (Resources(cpus=1, memory_gib=1), {}, 18),
        (Resources(cpus=1, memory_gib=8), {}, 9),
        (Resources(cpus=32), {}, 0),
        (Resources(cpus=1, accelerator="H100", accelerator_count=1), {}, 3),
        (Resources(cpus=1, accelerator="A100", accelerator_count=1), {}, 0),
        (Resources(cpus=1), {"resources": {"fast_disk": 1}}, 1),
        (Resources(cpus=1), {"resources": {"never_seen": 1}}, 0),
    ],
)
def test_jobs_that_fit_are_counted_node_by_node(
    pool: Callable[..., Pool], shape: Resources, options: dict[str, Any], fit: int
) -> None:
    idle = rooms(status(), NOW)
    assert idle is not None
    assert jobs_that_fit(idle, shape, read_options(pool(**options))) == fit


def test_an_old_count_is_none() -> None:
    assert rooms(status(NOW - timedelta(minutes=5)), NOW) is None
    assert rooms({"data": {"clusterStatus": None}}, NOW) is None


HEAD_S_WORDS = (
    "Traceback (most recent call last):\nRuntimeError: Request failed with status code {0}: {1}."
)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (401, "Unauthorized: Missing authentication token", AccessError),
        (403, "Forbidden: Invalid authentication token", AccessError),
        (404, "<html>nginx</html>", TransientError),
        (400, "ValueError: no", RejectedError),
        (500, HEAD_S_WORDS.format(400, "ValueError: runtime_env"), RejectedError),
        (500, "No available agent to submit job, please try again later.", TransientError),
        (502, "", TransientError),
        (429, "a proxy's limit", TransientError),
        (200, "<html>a login page</html>", TransientError),
    ],
)
def test_an_answer_that_is_none_says_nothing_of_the_job(
    pool: Callable[..., Pool], tmp_path: Path, code: int, text: str, kind: type[BackendError]
) -> None:
    headers = {"Retry-After": "7"}
    transport = httpx.MockTransport(lambda _: httpx.Response(code, text=text, headers=headers))
    client = JobsClient(Connection(host="ray.example", password="a token"), transport=transport)
    backend = RayBackend(pool(), home=tmp_path, client=client)
    with pytest.raises(kind) as caught:
        backend.observe([Job(key="dag/run/task/-1/1")])
    assert type(caught.value) is kind
    assert "a token" not in str(caught.value)
    if code in (429, 502):
        assert isinstance(caught.value, TransientError)
        assert caught.value.retry_after == timedelta(seconds=7)


def test_silence_says_nothing_of_the_job(pool: Callable[..., Pool], tmp_path: Path) -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too slow", request=request)

    client = JobsClient(Connection(host="ray.example"), transport=httpx.MockTransport(silent))
    with pytest.raises(TransientError, match="did not answer"):
        RayBackend(pool(), home=tmp_path, client=client).observe([Job(key="dag/run/task/-1/1")])


def test_output_is_read_on_whole_characters_at_a_time_and_fetched_once(
    pool: Callable[..., Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spillway.backends.ray_jobs.backend.MAX_LOG_BYTES", 5)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"logs": "a\u20ac\U0001f600\u00e4b" * 3})

    client = JobsClient(Connection(host="ray.example"), transport=httpx.MockTransport(answer))
    backend = RayBackend(pool(), home=tmp_path, client=client)
    text, offset, pieces = "", 0, 0
    while (chunk := backend.read_log(Job(key="dag/run/task/-1/1"), offset)).text:
        text, offset, pieces = text + chunk.text, chunk.next_offset, pieces + 1
    assert text == "a\u20ac\U0001f600\u00e4b" * 3
    assert len(asked) < pieces


def test_a_triggerer_that_uses_it_does_not_import_ray() -> None:
    """It takes seconds, and threads and memory."""
    code = "import sys, spillway.backends.ray_jobs.backend; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
