"""What is sent to SageMaker, what its answers mean, and how the runtime finds its submission there."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spillway.backends.aws_sagemaker import parse, render
from spillway.backends.aws_sagemaker.options import SageMakerOptions, read_options
from spillway.errors import RejectedError, SpecError
from spillway.model import JobEvent, Market, Pool, Resources, Submission
from spillway.model.codec import decode_json
from spillway.runtime.sagemaker import environment_of
from spillway.testing.aws_words import check, service

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ROLE = "arn:aws:iam::123456789012:role/spillway-training"
PLAN = "arn:aws:sagemaker:us-east-2:123456789012:training-plan/nightly"
REQUIRED = {
    "instance_type": "ml.trn2.48xlarge",
    "role": ROLE,
    "image": "123456789012.dkr.ecr.us-east-2.amazonaws.com/training:1",
}
OPTIONS = SageMakerOptions.model_validate(REQUIRED)
SUBMISSION = Submission(
    key="dag/run/task/-1/1",
    pool="trainium",
    token=7,
    entry_point="training:train",
    arguments={},
    resources=Resources(),
    store="s3://bucket/checkpoints",
    prefix="dag/task",
    grace_period=timedelta(seconds=120),
)


def pool(market: Market = Market.ON_DEMAND, **options: Any) -> Pool:
    return Pool(
        name="trainium",
        backend="aws_sagemaker",
        market=market,
        slots=2,
        shape=Resources(),
        list_usd_per_hour=Decimal(1),
        options={**REQUIRED, **options},
    )


@pytest.mark.parametrize("market", sorted(Market))
def test_requests_are_as_the_service_describes_them(market: Market) -> None:
    options = read_options(
        pool(
            market,
            subnets=["subnet-1"],
            security_groups=["sg-1"],
            tags={"team": "vision"},
            **({} if market is Market.SPOT else {"training_plan": PLAN}),
        )
    )
    made = render.request(replace(SUBMISSION, market=market, nodes=4), options)
    check("sagemaker", "CreateTrainingJob", made, code="ValidationException")
    assert made["ResourceConfig"]["InstanceCount"] == 4
    assert made["ResourceConfig"].get("TrainingPlanArn") == options.training_plan
    assert {"Key": "team", "Value": "vision"} in made["Tags"]


def test_a_spot_job_waits_for_instances_and_is_managed() -> None:
    options = read_options(pool(time_limit="PT2H", start_within="PT30M"))
    spot = render.request(replace(SUBMISSION, market=Market.SPOT), options)
    assert spot["EnableManagedSpotTraining"] is True
    assert spot["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 9000}
    other = render.request(SUBMISSION, options)
    assert other["EnableManagedSpotTraining"] is False
    assert other["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}


def test_what_jobs_leave_goes_into_the_store_where_that_is_in_s3() -> None:
    made = render.request(SUBMISSION, OPTIONS)
    assert made["CheckpointConfig"] == {
        "S3Uri": "s3://bucket/checkpoints/sagemaker/checkpoints/dag/task"
    }
    elsewhere = replace(SUBMISSION, store="gs://bucket/checkpoints")
    with pytest.raises(RejectedError, match="option output"):
        render.request(elsewhere, OPTIONS)
    told = OPTIONS.model_copy(update={"output": "s3://bucket/output"})
    assert "CheckpointConfig" not in render.request(elsewhere, told)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(text=st.text(max_size=9000))
def test_the_submission_arrives_whole(tmp_path: Path, text: str) -> None:
    submission = replace(SUBMISSION, arguments={"text": text})
    made = render.request(submission, OPTIONS)
    check("sagemaker", "CreateTrainingJob", made, code="ValidationException")
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True, exist_ok=True)
    (config / "hyperparameters.json").write_text(json.dumps(made["HyperParameters"]))
    (config / "resourceconfig.json").write_text('{"current_host": "algo-1", "hosts": ["algo-1"]}')
    found = environment_of(tmp_path, {"HOME": "/root"})
    assert decode_json(found["SPILLWAY_SUBMISSION"], Submission) == submission
    assert (found["SM_HOSTS"], found["SM_CURRENT_HOST"]) == ('["algo-1"]', "algo-1")
    assert found["HOME"] == "/root"
    assert parse.key_of(made) == submission.key


def test_a_submission_that_is_too_large_is_refused() -> None:
    with pytest.raises(RejectedError, match="write them to a file"):
        render.request(replace(SUBMISSION, arguments={"text": "x" * 250_000}), OPTIONS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"role": "spillway"}, "role"),
        ({"instance_type": "p5.48xlarge"}, "instance_type"),
        ({"output": "/srv/output"}, "output"),  # nothing is written there
        ({"subnets": ["subnet-1"]}, "security_groups"),
        ({"environment": {"LONG": "x" * 513}}, "LONG"),
        ({"queue": "x"}, "queue"),
    ],
)
def test_a_mistake_names_pool_and_option(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=rf"pool 'trainium' .*{named}"):
        read_options(pool(**options))


def test_a_training_plan_is_no_spot_capacity() -> None:
    with pytest.raises(SpecError, match="training_plan"):
        read_options(pool(Market.SPOT, training_plan=PLAN))


def test_every_status_of_the_service_is_in_the_table() -> None:
    assert set(service("sagemaker").shape_for("SecondaryStatus").enum) <= set(parse.EVENTS)


def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[4] / "docs" / "backends" / "aws.md").read_text()
    for status, event in parse.EVENTS.items():
        assert f"| `{status}` | {event.value if event else 'nothing yet'} |" in page


@pytest.mark.parametrize(
    ("reason", "event", "code"),
    [
        ("AlgorithmError: spillway: exit code: 75, exit code: 75", JobEvent.PREEMPTED, 75),
        ("AlgorithmError: , exit code: 3", JobEvent.FAILED, 3),
        ("AlgorithmError: Exit Code: 1", JobEvent.FAILED, 1),
        ("AlgorithmError: , exit code: 137", JobEvent.FAILED, 137),
        ("CapacityError: Unable to provision requested ML compute", JobEvent.PREEMPTED, None),
        ("InternalServerError: We encountered an internal error.", JobEvent.VANISHED, None),
        ("ClientError: Cannot pull the image", JobEvent.FAILED, None),
        ("", JobEvent.FAILED, None),
    ],
)
def test_the_reason_of_a_failure_tells_what_it_means(
    reason: str, event: JobEvent, code: int | None
) -> None:
    job = {"TrainingJobName": "x", "SecondaryStatus": "Failed", "FailureReason": reason}
    seen = parse.observation(job, NOW)
    assert (seen.event, seen.exit_code) == (event, code)
    assert ("memory_gib" in seen.detail and "instance_type" in seen.detail) == (code == 137)


def test_an_unknown_status_is_not_guessed() -> None:
    job = {"TrainingJobName": "x", "SecondaryStatus": "Hibernating"}
    assert parse.observation(job, NOW).event is None


def test_a_job_that_waits_too_long_goes_elsewhere() -> None:
    waiting = {"SecondaryStatus": "Pending", "CreationTime": NOW - timedelta(minutes=16)}
    late = parse.observation(waiting, NOW, start_within=timedelta(minutes=15))
    assert late.event is JobEvent.PREEMPTED
    assert parse.observation(waiting, NOW).event is JobEvent.SUBMITTED
