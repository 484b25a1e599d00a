"""What Ray is asked, and what a pool may say of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.backends.protocol import Connection, Job
from spillway.backends.ray_jobs import naming
from spillway.backends.ray_jobs.backend import RayBackend
from spillway.backends.ray_jobs.client import JobsClient
from spillway.backends.ray_jobs.options import read_options
from spillway.backends.ray_jobs.package import pack
from spillway.backends.ray_jobs.render import render
from spillway.errors import RejectedError, SpecError
from spillway.model import JobEvent, Launcher, Resources

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.model import Pool, Submission


def test_the_request_is_what_the_api_takes(
    pool: Callable[..., Pool], submission: Callable[..., Submission]
) -> None:
    told = {"environment": {"A": "b"}, "labels": {"team": "vision"}, "resources": {"zone": 1}}
    options = read_options(pool(pip=["polars"], **told))
    shape = Resources(cpus=3.5, memory_gib=2, accelerator="H100", accelerator_count=2)
    request = render(submission(resources=shape), options, working_dir="gcs://code.zip")
    variables = request["runtime_env"].pop("env_vars")
    assert json.loads(variables.pop("SPILLWAY_SUBMISSION"))["entry_point"] == "jobs:train"
    assert variables == {
        "A": "b",
        "SPILLWAY_RAY_GIVEN": "1",
        "RAY_JOB_STOP_WAIT_TIME_S": "20",
    }
    assert request == {
        "entrypoint": "exec python -m spillway.runtime",
        "submission_id": naming.submission_id("cluster", submission().key),
        "metadata": {
            "spillway_key": submission().key,
            "spillway_pool": "cluster",
            "spillway_nodes": "1",
            "team": "vision",
        },
        "runtime_env": {"working_dir": "gcs://code.zip", "pip": ["polars"]},
        "entrypoint_num_cpus": 4,
        "entrypoint_num_gpus": 2,
        "entrypoint_memory": 2 * 2**30,
        "entrypoint_resources": {"zone": 1, "accelerator_type:H100": 0.001},
    }


def test_an_image_is_asked_for_as_the_runtime_environment_has_it(
    pool: Callable[..., Pool], submission: Callable[..., Submission]
) -> None:
    options = read_options(pool(image_uri="registry.example/jobs:1"))
    request = render(submission(), options, working_dir=None)
    request["runtime_env"].pop("env_vars")
    assert request["runtime_env"] == {"image_uri": "registry.example/jobs:1"}


def test_a_job_that_works_through_the_cluster_leaves_its_resources_to_the_workers(
    pool: Callable[..., Pool], submission: Callable[..., Submission]
) -> None:
    job = submission(launcher=Launcher.RAY, resources=Resources(cpus=64), nodes=4)
    request = render(job, read_options(pool()), working_dir=None)
    assert not [name for name in request if name.startswith("entrypoint_")]
    assert request["metadata"][naming.NODES] == "4"
    held = render(job, read_options(pool(driver_cpus=0.5)), working_dir=None)
    assert held["entrypoint_num_cpus"] == 0.5


def test_a_gang_of_another_launcher_is_refused(
    pool: Callable[..., Pool], submission: Callable[..., Submission]
) -> None:
    with pytest.raises(RejectedError, match="launcher='ray'"):
        render(submission(nodes=2), read_options(pool()), working_dir=None)


def test_arguments_that_are_too_large_are_refused(
    pool: Callable[..., Pool], submission: Callable[..., Submission]
) -> None:
    with pytest.raises(RejectedError, match="too large to send"):
        render(submission(arguments={"a": "x" * 60_000}), read_options(pool()), working_dir=None)


@given(st.text(max_size=300), st.text(max_size=300))
def test_keys_of_all_kinds_name_different_jobs(one: str, other: str) -> None:
    first, second = (naming.submission_id("cluster", key) for key in (one, other))
    assert (first == second) == (one == other)
    assert len(first) <= 80
    assert first.replace("-", "").isalnum()
    assert first.isascii()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wrong": 1}, "option wrong"),
        ({"working_dir": "/no/such/folder"}, "no such folder"),
        ({"working_dir": "ftp://x/y.zip"}, "a URI that Ray can fetch"),
        ({"image_uri": "i:1", "pip": ["a"]}, "put both into the image"),
        ({"environment": {"a b": "c"}}, "no name of an environment variable"),
        ({"labels": {"spillway_key": "mine"}}, "choose another name"),
        ({"labels": {"job_submission_id": "mine"}}, "choose another name"),
        ({"labels": {"team": 3}}, "labels.team"),
        ({"resources": {"a": 0}}, "resources.a"),
        ({"start_within": "soon"}, "start_within"),
    ],
)
def test_a_mistake_in_the_options_names_pool_and_option(
    pool: Callable[..., Pool], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=f"'cluster'.*{said}"):
        read_options(pool(**options))


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        (Connection(host="ray.example"), "http://ray.example:8265"),
        (Connection(host="ray.example", port=80), "http://ray.example"),
        (Connection(host="https://ray.example/team/"), "https://ray.example/team"),
        (Connection(host="https://ray.example", port=8443), "https://ray.example:8443"),
    ],
)
def test_a_connection_says_where_the_dashboard_is(connection: Connection, url: str) -> None:
    assert JobsClient(connection).where == url


@pytest.mark.parametrize("hours", [-2, 2])
def test_how_long_a_job_waits_goes_by_the_cluster_s_clock(
    pool: Callable[..., Pool], submission: Callable[..., Submission], hours: int
) -> None:
    there = datetime.now(UTC) + timedelta(hours=hours)
    waited = timedelta(minutes=1)

    def answer(request: httpx.Request) -> httpx.Response:
        started = (there - waited).timestamp() * 1000
        name = request.url.path.rpartition("/")[2]
        job = {"type": "SUBMISSION", "submission_id": name, "status": "PENDING", "metadata": None}
        headers = {"Date": format_datetime(there, usegmt=True)}
        return httpx.Response(200, json={**job, "start_time": started}, headers=headers)

    client = JobsClient(Connection(host="ray"), transport=httpx.MockTransport(answer))
    backend = RayBackend(pool(start_within="PT15M"), home=Path(), client=client)
    job = Job(key=submission().key)
    seen = backend.observe([job])[job.key]
    assert seen.event is JobEvent.SUBMITTED
    assert abs(seen.seen_at - datetime.now(UTC)) < timedelta(minutes=1)
    waited = timedelta(minutes=16)
    assert backend.observe([job])[job.key].event is JobEvent.PREEMPTED


def test_the_token_and_the_connection_s_headers_go_with_each_call() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=[])

    connection = Connection(
        host="ray.example", password="secret", extra={"headers": {"X-Team": "ml"}}
    )
    JobsClient(connection, transport=httpx.MockTransport(answer)).jobs()
    assert seen[0].headers["Authorization"] == "Bearer secret"
    assert seen[0].headers["X-Team"] == "ml"


def test_no_credentials_go_into_a_job_and_its_package(
    pool: Callable[..., Pool], submission: Callable[..., Submission], tmp_path: Path
) -> None:
    (tmp_path / "jobs.py").write_text("def train(session): ...")
    sent: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(str(request.url).encode() + request.content)
        if request.method == "GET" and "/packages/" in request.url.path:
            return httpx.Response(404, text="package does not exist")
        return httpx.Response(
            200, json={"ray_version": "2.60.0"} if "version" in str(request.url) else []
        )

    secrets = {"password": "a token", "extra": {"headers": {"X-Proxy": "let me pass"}}}
    client = JobsClient(Connection(host="ray", **secrets), transport=httpx.MockTransport(answer))
    options = {"working_dir": str(tmp_path), "ray_version": "any"}
    RayBackend(pool(**options), home=tmp_path, client=client).submit(submission())
    assert b"spillway.runtime" in sent[-1]
    assert not [one for one in sent if b"a token" in one or b"let me pass" in one]


def test_a_pool_without_a_connection_says_what_it_needs(
    pool: Callable[..., Pool], tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="needs `connection:`"):
        RayBackend(pool(), home=tmp_path)
    with pytest.raises(SpecError, match="needs a host"):
        RayBackend(pool(), home=tmp_path, connection=Connection(password="x"))


@pytest.mark.parametrize("extra", [{"ca_file": "/no/such/file"}, {"headers": "X: y"}])
def test_a_mistake_in_the_connection_s_extra_is_told(extra: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="connection"):
        JobsClient(Connection(host="ray.example", extra=extra))


def test_the_same_files_make_the_same_package(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "package" / "__pycache__").mkdir(parents=True)
        (folder / "package" / "a.py").write_text("A = 1\n")
        (folder / "package" / "__pycache__" / "a.pyc").write_text(name)
        (folder / "data.bin").write_text(name)
    first, second = (pack(str(tmp_path / name), ["*.bin"]) for name in ("one", "two"))
    assert first == second
    assert pack(str(tmp_path / "one"), [])[0] != first[0]


def test_a_tree_that_is_too_large_says_what_to_leave_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spillway.backends.ray_jobs.package.MAX_BYTES", 100)
    (tmp_path / "large").write_bytes(bytes(range(256)))
    with pytest.raises(SpecError, match="excludes"):
        pack(str(tmp_path), [])
