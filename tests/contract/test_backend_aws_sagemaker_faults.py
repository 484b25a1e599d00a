"""What happens to SageMaker's training jobs: interrupted, refused, without capacity, throttled, forgotten."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from contract.aws_world import ROLE, SageMakerWorld, wait_for
from contract.beside import BesideCloud, places_after_a_stockout
from spillway.backends.protocol import Job
from spillway.errors import AccessError, CapacityError, RejectedError, TransientError
from spillway.model import JobEvent, Market
from spillway.testing.aws_market import ACCESS_KEY, SECRET_KEY, aws_market
from spillway.testing.aws_words import AwsError
from spillway.testing.backend_suite import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spillway.testing.aws_market import AwsMarket

STARTED = frozenset({JobEvent.STARTED})
KIND = "ml.p5.48xlarge"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMarket]:
    with aws_market(tmp_path_factory.mktemp("aws")) as market:
        yield market


@pytest.fixture
def world(market: AwsMarket, tmp_path: Path) -> Iterator[SageMakerWorld]:
    world = SageMakerWorld(market, tmp_path)
    yield world
    for one in (market.sagemaker.quotas, market.sagemaker.lacking, market.sagemaker.roles):
        one.clear()
    market.sagemaker.missing_images.clear()
    market.meetings.clear()
    market.ahead = timedelta(0)
    world.release_all()


def test_an_interrupted_spot_job_is_preempted_and_does_not_go_on_by_itself(
    market: AwsMarket, world: SageMakerWorld
) -> None:
    spot = SageMakerWorld(market, world.folder, bought=Market.SPOT)
    backend = spot.connect()
    job = backend.submit(spot.submission(Behaviour.RUNS_ON))
    spot.wait(backend, job, STARTED)
    market.sagemaker.interrupt(job.provider_id)
    assert backend.observe([job])[job.key].event is JobEvent.PREEMPTED
    backend.release(job)
    assert market.sagemaker.jobs[job.provider_id].detail["TrainingJobStatus"] == "Stopped"
    assert backend.free_slots() == spot.slots


def test_what_a_job_leaves_in_its_folder_is_in_our_store_and_there_for_the_next(
    market: AwsMarket, world: SageMakerWorld
) -> None:
    s3 = market.client("s3")
    s3.create_bucket(Bucket="lab")
    s3.put_object(
        Bucket="lab", Key="store/nightly/train/ours", Body=b"a checkpoint of the runtime's"
    )
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    spot = SageMakerWorld(market, world.folder, bought=Market.SPOT)
    spot.options["environment"] = spot.own_options()["environment"] | keys
    store = f"s3://lab/store?endpoint={quote(market.moto_url, safe='')}"
    backend = spot.connect()

    def run(name: str) -> Job:
        asked = spot.job_of("sample_jobs:leave_a_file", name=name)
        return backend.submit(replace(asked, store=store, prefix="nightly/train"))

    def says(job: Job, words: str) -> bool:
        return words in backend.read_log(job, 0).text

    first = run("a")
    wait_for(lambda: says(first, "found []"))
    kept = "store/sagemaker/checkpoints/nightly/train/"
    left = market.sagemaker.jobs[str(first.provider_id)].folder / "0" / "checkpoints" / "a"
    wait_for(left.exists)
    market.sagemaker.interrupt(first.provider_id)
    assert backend.observe([first])[first.key].event is JobEvent.PREEMPTED
    backend.release(first)
    listed = s3.list_objects_v2(Bucket="lab", Prefix=kept)["Contents"]
    assert [one["Key"] for one in listed] == [f"{kept}a"]
    second = run("b")
    wait_for(lambda: says(second, "found ['a']"))
    backend.release(second)


def test_a_clock_that_is_wrong_ends_nothing(market: AwsMarket, world: SageMakerWorld) -> None:
    world.options["start_within"] = "PT10M"
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, job, STARTED)
    detail = market.sagemaker.jobs[str(job.provider_id)].detail
    detail["SecondaryStatus"] = "Pending"
    now = detail["CreationTime"]
    for hours in (-2, 2):
        market.ahead = timedelta(hours=hours)
        detail["CreationTime"] = now + hours * 3600
        assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
        detail["CreationTime"] -= 11 * 60
        seen = backend.observe([job])[job.key]
        assert seen.event is JobEvent.PREEMPTED
        assert abs(seen.seen_at - datetime.now(UTC)) < timedelta(minutes=1)  # by our own clock


def test_credentials_never_travel(market: AwsMarket, world: SageMakerWorld) -> None:
    before = len(market.received)
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.list_jobs() == [job]
    backend.release(job)
    sent = b"\n".join(market.received[before:])
    assert str(job.provider_id).encode() in sent
    assert SECRET_KEY.encode() not in sent
    kept = str(market.sagemaker.jobs[str(job.provider_id)].detail)
    assert SECRET_KEY not in kept
    assert ACCESS_KEY not in kept


def test_a_job_that_is_being_stopped_is_neither_over_nor_started_again(
    market: AwsMarket, world: SageMakerWorld
) -> None:
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    detail = market.sagemaker.jobs[job.provider_id].detail
    told = dict(detail)
    detail |= {"TrainingJobStatus": "Stopping", "SecondaryStatus": "Stopping"}
    before = market.calls.count("sagemaker:CreateTrainingJob")
    assert backend.observe([job])[job.key].event is None  # instances go on for a while
    assert backend.submit(submission) == job
    assert market.calls.count("sagemaker:CreateTrainingJob") == before
    detail |= told


def test_a_type_that_there_is_no_capacity_of_sends_the_task_elsewhere(
    world: SageMakerWorld,
) -> None:
    world.market.sagemaker.lacking.add(KIND)
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    seen = backend.observe([job])[job.key]
    assert seen.event is JobEvent.PREEMPTED
    assert "CapacityError" in seen.detail


def test_a_stockout_keeps_tasks_off_the_pool(world: SageMakerWorld, tmp_path: Path) -> None:
    world.market.sagemaker.lacking.add(KIND)
    deployment = BesideCloud(tmp_path, world)
    assert places_after_a_stockout(deployment) == [world.name, "on_demand", "on_demand"]


def test_two_that_submit_at_once_start_one_job(world: SageMakerWorld) -> None:
    submission = world.submission(Behaviour.RUNS_ON)
    before = len(world.market.sagemaker.jobs)
    world.market.meetings["sagemaker:CreateTrainingJob"] = Barrier(2)
    backends = [world.connect(), world.connect()]
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda backend: backend.submit(submission), backends)
    assert first == second
    assert len(world.market.sagemaker.jobs) == before + 1


def test_a_quota_that_is_reached_is_told_with_its_name(world: SageMakerWorld) -> None:
    world.market.sagemaker.quotas[KIND] = 0
    with pytest.raises(
        AccessError, match=r"ml\.p5\.48xlarge for training job usage.*Service Quotas"
    ):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))


def test_an_unknown_role_image_or_instance_type_names_the_option(
    market: AwsMarket, world: SageMakerWorld
) -> None:
    market.sagemaker.roles.add("arn:aws:iam::123456789012:role/another")
    with pytest.raises(RejectedError, match="correct the roles"):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))
    market.sagemaker.roles.add(ROLE)
    market.sagemaker.missing_images.add("registry.example/training:1")
    with pytest.raises(RejectedError, match="correct the option image"):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))
    odd = SageMakerWorld(market, world.folder, instance_type="ml.p9.huge")
    with pytest.raises(RejectedError, match="correct the instance type"):
        odd.connect().submit(odd.submission(Behaviour.SUCCEEDS))


@pytest.mark.parametrize(
    "permission", ["CreateTrainingJob", "DescribeTrainingJob", "ListTrainingJobs"]
)
def test_a_missing_permission_is_named(world: SageMakerWorld, permission: str) -> None:
    world.market.deny(f"sagemaker:{permission}")
    with pytest.raises(AccessError, match=f"sagemaker:{permission}"):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))


def test_a_throttled_question_says_nothing_of_a_job(world: SageMakerWorld) -> None:
    throttled = AwsError(code="ThrottlingException", message="Rate exceeded", status=400)
    world.market.fail("sagemaker:ListTrainingJobs", throttled)
    with pytest.raises(TransientError, match="ThrottlingException"):
        world.connect().observe([Job(key="dag/run/task/-1/1")])


def test_an_error_of_capacity_at_once_is_sorted_so(world: SageMakerWorld) -> None:
    lacking = AwsError(code="InsufficientCapacity", message="none left")
    world.market.fail("sagemaker:CreateTrainingJob", lacking)
    with pytest.raises(CapacityError):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))


def test_running_jobs_are_observed_in_one_call(world: SageMakerWorld) -> None:
    backend = world.connect()
    jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(world.slots)]
    before = len(world.market.calls)
    backend.observe(jobs)
    assert world.market.calls[before:] == ["sagemaker:ListTrainingJobs"]


def test_a_training_plan_has_the_room_that_is_left_of_it(
    market: AwsMarket, world: SageMakerWorld
) -> None:
    arn = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/nightly"
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    planned = SageMakerWorld(market, world.folder, bought=Market.RESERVED, training_plan=arn)
    market.sagemaker.plans["nightly"] = {
        "TrainingPlanArn": arn,
        "Status": "Active",
        "AvailableInstanceCount": 1,
        "EndTime": end.timestamp(),
    }
    backend = planned.connect()
    assert backend.free_slots() == 1
    said = backend.said_end()
    assert said is not None
    assert said.at == end
