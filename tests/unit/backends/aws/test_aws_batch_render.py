"""What is sent to AWS Batch, and what its answers mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.backends.aws_batch import parse, render
from spillway.backends.aws_batch.options import BatchOptions, read_options
from spillway.errors import SpecError
from spillway.model import JobEvent, Market, Pool, Resources, Submission
from spillway.testing.aws_words import check, service

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/spillway-job"
OPTIONS = BatchOptions(queue="training", image="registry.example/training:1", job_role=ROLE)
SUBMISSION = Submission(
    key="dag/run/task/-1/1",
    pool="trainium",
    token=7,
    entry_point="training:train",
    arguments={},
    resources=Resources(cpus=8, memory_gib=64),
    store="s3://bucket/checkpoints",
    prefix="dag/task",
    grace_period=timedelta(seconds=120),
)


def pool(**options: Any) -> Pool:
    return Pool(
        name="trainium",
        backend="aws_batch",
        market=Market.SPOT,
        slots=2,
        shape=Resources(),
        list_usd_per_hour=Decimal(1),
        options={"queue": "training", "image": "registry.example/training:1", **options},
    )


def container(options: BatchOptions, resources: Resources, nodes: int = 1) -> dict[str, Any]:
    submission = replace(SUBMISSION, resources=resources, nodes=nodes)
    made = render.definition(submission, options)
    if nodes == 1:
        found: dict[str, Any] = made["containerProperties"]
    else:
        found = made["nodeProperties"]["nodeRangeProperties"][0]["container"]
    return found


@pytest.mark.parametrize("nodes", [1, 4])
def test_requests_are_as_the_service_describes_them(nodes: int) -> None:
    options = OPTIONS.model_copy(
        update={
            "secrets": {"TOKEN": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x"},
            "time_limit": timedelta(hours=24),
            "share_identifier": "vision",
            "instance_type": "trn2.48xlarge",
            "shared_memory_mib": 1024,
        }
    )
    submission = replace(SUBMISSION, nodes=nodes)
    definition = render.definition(submission, options)
    check("batch", "RegisterJobDefinition", definition, code="ClientException")
    job = render.job(submission, options, "arn")
    check("batch", "SubmitJob", job, code="ClientException")
    assert definition["retryStrategy"] == {"attempts": 1}
    assert definition["timeout"] == {"attemptDurationSeconds": 86_400}


def test_a_neuron_shape_gives_its_devices_and_no_gpus() -> None:
    options = OPTIONS.model_copy(update={"instance_type": "trn2.48xlarge"})
    made = container(options, Resources(accelerator="Trainium2", accelerator_count=16))
    devices = [one["hostPath"] for one in made["linuxParameters"]["devices"]]
    assert devices == [f"/dev/neuron{n}" for n in range(16)]
    assert {one["type"] for one in made["resourceRequirements"]} == {"VCPU", "MEMORY"}


def test_part_of_an_inferentia_instance_gives_part_of_its_devices() -> None:
    options = OPTIONS.model_copy(update={"instance_type": "inf2.48xlarge"})
    made = container(options, Resources(accelerator="Inferentia2", accelerator_count=2))
    assert [one["hostPath"] for one in made["linuxParameters"]["devices"]] == [
        "/dev/neuron0",
        "/dev/neuron1",
    ]


def test_a_gang_on_p5_has_gpus_and_every_fabric_adapter() -> None:
    options = OPTIONS.model_copy(update={"instance_type": "p5.48xlarge"})
    made = container(options, Resources(accelerator="H100", accelerator_count=8), nodes=4)
    assert {"type": "GPU", "value": "8"} in made["resourceRequirements"]
    assert len(made["linuxParameters"]["devices"]) == 32
    assert made["ulimits"] == [{"name": "memlock", "softLimit": -1, "hardLimit": -1}]
    alone = container(options, Resources(accelerator="H100", accelerator_count=8))
    assert "devices" not in alone["linuxParameters"]


@pytest.mark.parametrize(("market", "queue"), [(Market.SPOT, "cheap"), (Market.ON_DEMAND, "sure")])
def test_a_job_goes_into_the_queue_of_its_market(market: Market, queue: str) -> None:
    queues = {Market.SPOT: "cheap", Market.ON_DEMAND: "sure"}
    options = OPTIONS.model_copy(update={"queue": None, "queues": queues})
    made = render.job(replace(SUBMISSION, market=market), options, "definition")
    assert made["jobQueue"] == queue


def test_a_definition_is_named_by_its_content_and_by_nothing_else() -> None:
    name = render.definition(SUBMISSION, OPTIONS)["jobDefinitionName"]
    later = replace(SUBMISSION, key="another/one", token=8, arguments={"epochs": 3})
    assert render.definition(later, OPTIONS)["jobDefinitionName"] == name
    newer = OPTIONS.model_copy(update={"image": "registry.example/training:2"})
    assert render.definition(SUBMISSION, newer)["jobDefinitionName"] != name


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"image": None}, "image"),
        ({"queue": "two words"}, "queue"),
        ({"job_role": "spillway-job"}, "job_role"),
        ({"time_limit": "PT30S"}, "time_limit"),
        ({"tags": {"aws:team": "vision"}}, "tags"),
        ({"environment": {"AWS_BATCH_X": "1"}}, "environment"),
        ({"secrets": {"TOKEN": "arn:aws:ssm:eu:1:parameter/x"}}, "execution_role"),
        ({"min_placement_score": 5}, "instance_type"),
        ({"min_placement_score": 11, "instance_type": "p5.48xlarge"}, "min_placement_score"),
        ({"queues": {"cheap": "x"}}, "queues"),
        ({"partition": "x"}, "partition"),
    ],
)
def test_a_mistake_names_pool_and_option(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=rf"pool 'trainium' .*{named}"):
        read_options(pool(**options))


def test_every_state_of_the_service_is_in_the_table() -> None:
    assert set(parse.EVENTS) == set(service("batch").shape_for("JobStatus").enum)


def test_the_page_shows_the_tables() -> None:
    page = (Path(__file__).parents[4] / "docs" / "backends" / "aws.md").read_text()
    for state, event in parse.EVENTS.items():
        assert f"| `{state}` | {event.value} |" in page


def failed(reason: str, code: int | None = None, why: str = "", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": why} if why else {}
    if code is not None:
        found["exitCode"] = code
    return {"jobId": "1", "status": "FAILED", "statusReason": reason, "container": found, **more}


EXITED = "Essential container in task exited"
MEMORY = "OutOfMemoryError: Container killed due to memory usage"


@pytest.mark.parametrize(
    ("detail", "event"),
    [
        (failed("Host EC2 (instance i-0123456789abcdef0) terminated."), JobEvent.PREEMPTED),
        (failed(EXITED, 75), JobEvent.PREEMPTED),
        (failed("Job attempt duration exceeded timeout", 137), JobEvent.PREEMPTED),
        (failed(EXITED, 1), JobEvent.FAILED),
        (failed(EXITED, 137, MEMORY), JobEvent.FAILED),
        (failed("Task failed to start", why="CannotPullContainerError: x"), JobEvent.FAILED),
        (failed("a reason of tomorrow"), JobEvent.FAILED),
        (failed("released by spillway", 75, isTerminated=True), JobEvent.CANCELLED),
        (failed("released by spillway", isCancelled=True), JobEvent.CANCELLED),
        ({"jobId": "1", "status": "HIBERNATING"}, None),
        ({"jobId": "1", "status": "RUNNING", "isTerminated": True}, None),
    ],
)
def test_an_answer_means_one_event(detail: dict[str, Any], event: JobEvent | None) -> None:
    assert parse.observation(detail, NOW).event is event


def test_a_gang_ends_as_its_main_node_did() -> None:
    gang = {"jobId": "1", "status": "FAILED", "nodeProperties": {"numNodes": 2}}
    seen = parse.observation(gang, NOW, node=failed(EXITED, 75))
    assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, 75)


def test_a_job_that_waits_too_long_goes_elsewhere() -> None:
    created = int((NOW - timedelta(minutes=16)).timestamp() * 1000)
    waiting = {"jobId": "1", "status": "RUNNABLE", "createdAt": created}
    late = parse.observation(waiting, NOW, start_within=timedelta(minutes=15))
    assert late.event is JobEvent.PREEMPTED
    assert parse.observation(waiting, NOW).event is JobEvent.SUBMITTED


@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab", max_size=2)), min_size=1))
def test_who_came_first_does_not_depend_on_the_order(found: list[tuple[int, str]]) -> None:
    rows = [
        parse.JobRow(job_id=job_id, name="n", status="RUNNING", created_ms=created)
        for created, job_id in found
    ]
    assert parse.earliest(rows) == parse.earliest(reversed(rows))
