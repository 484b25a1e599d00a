"""What is sent to SkyPilot and what is read from it, without a server."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from spillway.backends.protocol import Connection
from spillway.backends.skypilot import parse, render
from spillway.backends.skypilot.client import ApiServer
from spillway.backends.skypilot.failures import Failure, Kind
from spillway.backends.skypilot.options import read_options
from spillway.catalog.pools_file import load_pools
from spillway.errors import RejectedError, SpecError
from spillway.model import JobEvent, Market, Pool, Resources, Submission
from spillway.model.codec import decode_json

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DOCUMENT = Path(__file__).parents[4] / "docs" / "backends" / "skypilot.md"
LAMBDA = {"cloud": "lambda", "region": "us-east-1", "instance_type": "gpu_8x_h100_sxm5"}


def pool(**options: Any) -> Pool:
    return Pool(
        name="tail",
        backend="skypilot",
        market=Market.SPOT,
        slots=1,
        shape=Resources(),
        list_usd_per_hour=Decimal(1),
        options=options,
    )


def submission(**facts: Any) -> Submission:
    given = {
        "key": "dag/run/task/-1/1",
        "pool": "tail",
        "token": 1,
        "entry_point": "jobs:run",
        "arguments": {"text": "$HOME \u00e4\U0001f600 'quoted' \"twice\"\n"},
        "resources": Resources(cpus=3.5, memory_gib=7.2, accelerator="H100", accelerator_count=2),
        "store": "s3://bucket/store",
        "prefix": "p",
        "grace_period": timedelta(seconds=30),
        "market": Market.SPOT,
    }
    return Submission(**{**given, **facts})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "option cloud"),
        ({"cloud": "lambda"}, "option region"),
        ({**LAMBDA, "cloud": "moon"}, "SkyPilot knows none by the name 'moon'"),
        ({**LAMBDA, "instance_type": None}, "sky show-gpus --cloud lambda"),
        ({**LAMBDA, "region": "*"}, "SkyPilot chooses nothing"),
        ({**LAMBDA, "reservations": ["ours"]}, "only, not of lambda"),
        ({**LAMBDA, "environment": {"SKYPILOT_NODE_RANK": "3"}}, "SkyPilot's own"),
        ({**LAMBDA, "look_at": 0}, "option look_at"),
        ({**LAMBDA, "use_spot": True}, "option use_spot"),
    ],
)
def test_a_mistake_in_the_options_names_pool_and_option(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(words)) as mistake:
        read_options(pool(**options))
    assert "'tail'" in str(mistake.value)


def test_the_pools_of_the_documentation_are_in_order(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "pools.yaml").write_text(block)
    assert load_pools(tmp_path / "pools.yaml")[0].slots == 4
    examples = [(one["market"], one["options"]) for one in yaml.safe_load(block)["pools"]]
    rows = re.findall(r"^\|[^|]+\| `(\w+)` \| `(\{.*\})` \|$", text, re.MULTILINE)
    examples += [(market, yaml.safe_load(options)) for market, options in rows]
    clouds = {read_options(pool(**options)).cloud for _, options in examples}
    assert {"azure", "lambda", "paperspace", "runpod", "nebius", "gcp", "kubernetes"} <= clouds
    for market, options in examples:
        wanted = render.task(submission(market=Market(market)), read_options(pool(**options)))
        assert wanted["resources"]["use_spot"] is (market == "spot")


def test_a_submission_arrives_as_it_was() -> None:
    body = render.launch(submission(), read_options(pool(**LAMBDA)))
    variables = yaml.safe_load(body["task"])["envs"]
    sent = base64.b64decode(variables["SPILLWAY_SUBMISSION_BASE64"])
    assert decode_json(sent, Submission) == submission()


def test_a_submission_that_no_variable_holds_is_refused() -> None:
    with pytest.raises(RejectedError, match="put large arguments into a file"):
        render.launch(submission(arguments={"a": "x" * 100_000}), read_options(pool(**LAMBDA)))


def test_ones_own_machines_are_cut_to_size() -> None:
    options = read_options(
        pool(cloud="kubernetes", region="ours", accelerators={"H100": "H100-80GB"}, idle=None)
    )
    assert render.task(submission(), options)["resources"] == {
        "infra": "kubernetes/ours",
        "use_spot": True,
        "labels": {"spillway-job": render.launch(submission(), options)["cluster_name"]},
        "cpus": 4,
        "memory": 8,
        "accelerators": {"H100-80GB": 2},
    }


def test_reservations_are_named_to_skypilot() -> None:
    options = read_options(
        pool(cloud="gcp", region="us-central1", instance_type="a3-highgpu-8g", reservations=["r"])
    )
    assert render.configuration(options) == {"gcp": {"specific_reservations": ["r"]}}


@pytest.mark.parametrize("cloud", ["kubernetes", "ssh"])
def test_skypilot_waits_for_a_node_as_long_as_the_job_may(cloud: str) -> None:
    options = read_options(pool(cloud=cloud, region="ours", start_within="PT20M"))
    assert render.configuration(options) == {cloud: {"provision_timeout": 1200}}
    unsaid = read_options(pool(cloud=cloud, region="ours"))
    assert render.configuration(unsaid) == {}


@pytest.mark.parametrize(
    ("output", "code"),
    [
        (
            "(a, pid=3) Job 9 failed\nERROR: \x1b[31mJob 1 failed with return code list:\x1b[0m [3] ",
            3,
        ),
        ("ERROR: Job 1 failed with return code list: [137, 0, 75] (A Worker failed)", 75),
        ("ERROR: Job 1 failed with return code list: [137, 137]", 137),
        ("nothing of that", None),
    ],
)
def test_the_exit_code_is_that_of_the_node_that_failed_by_itself(
    output: str, code: int | None
) -> None:
    assert parse.exit_code(output) == code


def test_exit_codes_tell_a_preemption_from_a_lack_of_memory() -> None:
    up = parse.cluster({"name": "a", "status": "UP", "launched_at": 0, "nodes": 1})

    def seen(code: int) -> Any:
        job = parse.JobState(status="FAILED", exit_code=code)
        return parse.observation(
            found=up, job=job, requests=(), spot=False, now=NOW, start_within=None
        )

    assert (seen(75).event, seen(75).exit_code) == (JobEvent.PREEMPTED, 75)
    assert seen(137).event is JobEvent.FAILED
    assert "ran out of memory" in seen(137).detail


@pytest.mark.parametrize(
    ("status", "requests", "spot", "event"),
    [
        ("RUNNING", (), True, JobEvent.SUBMITTED),
        ("CANCELLED", (), True, JobEvent.CANCELLED),
        ("SUCCEEDED", (), True, JobEvent.PREEMPTED),
        ("SUCCEEDED", (), False, JobEvent.VANISHED),
        ("SUCCEEDED", ("sky.down",), True, JobEvent.VANISHED),
    ],
)
def test_what_a_missing_cluster_means_is_told_by_what_was_asked(
    status: str, requests: tuple[str, ...], spot: bool, event: JobEvent
) -> None:
    asked = [
        parse.Request(id=name, name=name, status=state, cluster="a", created_at=NOW)
        for name, state in [("sky.launch", status), *((one, "SUCCEEDED") for one in requests)]
    ]
    seen = parse.observation(
        found=None, job=None, requests=asked, spot=spot, now=NOW, start_within=None
    )
    assert seen.event is event


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        (Kind.NO_ROOM, JobEvent.PREEMPTED),
        (Kind.LATER, JobEvent.PREEMPTED),
        (Kind.ACCESS, JobEvent.FAILED),
        (Kind.CANCELLED, JobEvent.CANCELLED),
    ],
)
def test_why_a_launch_failed_tells_whether_another_pool_may_do(kind: Kind, event: JobEvent) -> None:
    types = {
        Kind.NO_ROOM: "ResourcesUnavailableError",
        Kind.LATER: "NetworkError",
        Kind.ACCESS: "NoCloudAccessError",
        Kind.CANCELLED: "RequestCancelled",
    }
    reason = Failure(type=types[kind], message="so it was")
    launch = parse.Request(
        id="1",
        name="sky.launch",
        status="FAILED",
        cluster="a",
        created_at=NOW,
        failure=reason,
    )
    seen = parse.observation(
        found=None, job=None, requests=[launch], spot=True, now=NOW, start_within=None
    )
    assert (reason.kind, seen.event) == (kind, event)
    assert "so it was" in seen.detail


@pytest.mark.parametrize(
    ("status", "failure", "event"),
    [
        ("RUNNING", None, JobEvent.SUBMITTED),
        ("FAILED", Failure(type="NetworkError", message="lost"), JobEvent.PREEMPTED),
        ("SUCCEEDED", None, None),
    ],
)
def test_machines_without_a_job_are_what_their_launch_says(
    status: str, failure: Failure | None, event: JobEvent | None
) -> None:
    launch = parse.Request(
        id="1",
        name="sky.launch",
        status=status,
        cluster="a",
        created_at=NOW,
        failure=failure,
    )
    up = parse.cluster({"name": "a", "status": "UP", "launched_at": 0, "nodes": 1})
    seen = parse.observation(
        found=up, job=None, requests=[launch], spot=True, now=NOW, start_within=None
    )
    assert seen.event is event


def test_who_prints_is_left_out_of_the_output() -> None:
    text = "\x1b[36m(sw-1, pid=12)\x1b[0m first (pid=3)\n(worker1, rank=1, pid=7, ip=10.0.0.2) second\nthird\n"
    assert parse.spoken(text) == "first (pid=3)\nsecond\nthird\n"


def test_others_tasks_are_not_taken_for_ours() -> None:
    row = {"name": "a", "status": "UP", "launched_at": 0, "nodes": 1}
    for text in (None, "{", "- a\n", "envs: 3", json.dumps({"envs": {"A": "b"}})):
        assert parse.cluster({**row, "last_creation_yaml": text}).key is None


@pytest.mark.parametrize("connection", [Connection(), Connection(host="http://a:b")])
def test_a_connection_without_an_address_is_a_mistake(connection: Connection) -> None:
    with pytest.raises(SpecError):
        ApiServer(connection)


def test_a_token_travels_in_the_header_and_is_not_shown() -> None:
    connection = Connection(host="sky.example", password="sky_secret")
    assert "sky_secret" not in repr(connection)
    assert ApiServer(connection).where == "http://sky.example:46580"
