"""What happens to jobs of AWS Batch: taken back, out of memory, refused, throttled, started twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from contract.aws_world import QUEUE, BatchWorld, wait_for
from spillway.backends.aws import naming
from spillway.backends.protocol import Job
from spillway.checkpoints import latest, open_store
from spillway.errors import AccessError, CapacityError, RejectedError, SpecError, TransientError
from spillway.model import JobEvent, Market, Resources
from spillway.testing.aws_batch_service import DEVICES
from spillway.testing.aws_market import (
    ACCESS_KEY,
    REGION,
    SECRET_KEY,
    Reservation,
    aws_market,
)
from spillway.testing.aws_words import AwsError
from spillway.testing.backend_suite import Behaviour

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spillway.testing.aws_market import AwsMarket

STARTED = frozenset({JobEvent.STARTED})
SUBMITTED = frozenset({JobEvent.SUBMITTED})
THROTTLED = AwsError(
    code="TooManyRequestsException",
    message="Too Many Requests",
    status=429,
    headers={"Retry-After": "7"},
)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMarket]:
    with aws_market(tmp_path_factory.mktemp("aws")) as market:
        yield market


@pytest.fixture
def world(market: AwsMarket, tmp_path: Path) -> Iterator[BatchWorld]:
    market.batch.queues["waits"] = 0
    world = BatchWorld(market, tmp_path)
    yield world
    world.release_all()
    market.batch.missing_images.clear()
    market.batch.waiting_reason = ""
    market.ahead = timedelta(0)
    market.meetings.clear()


def started(world: BatchWorld) -> Job:
    job = world.connect().submit(world.submission(Behaviour.RUNS_ON))
    world.wait(world.connect(), job, STARTED)
    return job


def calls(market: AwsMarket, permission: str) -> int:
    return market.calls.count(permission)


def test_an_instance_that_is_taken_back_at_once_is_a_preemption(world: BatchWorld) -> None:
    job = started(world)
    world.market.batch.interrupt(job.provider_id or "", notice_seconds=0)
    seen = world.wait(world.connect(), job)
    assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, None)
    assert "Host EC2" in seen.detail


def test_a_notice_saves_a_checkpoint_and_ends_in_a_preemption(
    world: BatchWorld, tmp_path: Path
) -> None:
    backend = world.connect()
    never = str(tmp_path / "gate")
    submission = world.job_of("sample_jobs:train", steps=8, gate=never)
    job = backend.submit(submission)
    wait_for(lambda: "at the gate" in backend.read_log(job, 0).text)
    world.market.batch.interrupt(job.provider_id or "", notice_seconds=60)
    seen = world.wait(backend, job)
    assert (seen.event, seen.exit_code) == (JobEvent.PREEMPTED, 75)
    found = latest(open_store(submission.store), submission.prefix)
    assert found is not None
    assert found.manifest.step == 4


def test_the_room_of_a_pool_is_what_is_left_of_its_capacity_block(
    market: AwsMarket, world: BatchWorld
) -> None:
    now = datetime.now(UTC)
    ids = {"capacity_reservations": ["cr-0123"]}
    reserved = BatchWorld(market, world.folder, bought=Market.RESERVED, **ids)
    rooms, ends = [], []
    for hours in (2.0, 0.25):
        market.reservations = [
            Reservation(
                reservation_id="cr-0123",
                available=1,
                ends_at=now + timedelta(hours=hours),
                is_block=True,
            )
        ]
        backend = reserved.connect()
        rooms.append(backend.free_slots())
        ends.append(backend.said_end())
    assert rooms == [1, 0]
    assert ends[0] is not None
    assert abs(ends[0].at - (now + timedelta(hours=1.5))) < timedelta(seconds=1)  # EC2's format
    assert ends[0].said_at >= now
    assert ends[1] is None


def test_what_the_market_does_not_simulate_is_answered_by_moto(market: AwsMarket) -> None:
    ec2 = market.session().client("ec2", endpoint_url=market.url)
    (shape,) = ec2.describe_instance_types(InstanceTypes=["p5.48xlarge"])["InstanceTypes"]
    assert shape["VCpuInfo"]["DefaultVCpus"] == 192


def test_a_job_that_uses_too_much_memory_has_failed_and_says_so(world: BatchWorld) -> None:
    job = started(world)
    world.market.batch.run_out_of_memory(job.provider_id or "")
    seen = world.wait(world.connect(), job)
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, 137)
    assert "raise memory_gib" in seen.detail


@pytest.mark.parametrize(
    ("kind", "accelerator", "chips"),
    [("trn2.48xlarge", "Trainium2", 16), ("inf2.24xlarge", "Inferentia2", 6)],
)
def test_a_job_sees_the_neuron_devices_that_its_instance_has(
    world: BatchWorld, kind: str, accelerator: str, chips: int
) -> None:
    world.market.batch.queues[kind] = 100
    world.market.batch.instance_types[kind] = kind
    world.options |= {"queue": kind, "instance_type": kind}
    backend = world.connect()
    asked = world.job_of("sample_jobs:print_variable", name=DEVICES)
    whole = Resources(cpus=96, memory_gib=300, accelerator=accelerator, accelerator_count=chips)
    job = backend.submit(replace(asked, resources=whole))
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    seen = {word for word in backend.read_log(job, 0).text.split() if word.startswith("/dev/")}
    assert seen == {f"/dev/neuron{number}" for number in range(chips)}
    cases = [
        (replace(whole, accelerator_count=chips + 1), "CannotStartContainerError"),
        (replace(whole, cpus=500), "JOB_RESOURCE_REQUIREMENT"),
    ]
    for resources, words in cases:
        job = backend.submit(replace(world.submission(Behaviour.SUCCEEDS), resources=resources))
        seen = world.wait(backend, job)
        assert seen.event is JobEvent.FAILED
        assert words in seen.detail


def test_a_missing_image_is_a_failure_that_names_the_remedy(world: BatchWorld) -> None:
    world.market.batch.missing_images.add("registry.example/training:1")
    backend = world.connect()
    seen = world.wait(backend, backend.submit(world.submission(Behaviour.SUCCEEDS)))
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, None)
    assert "correct the option image" in seen.detail


def test_a_job_that_batch_forgot_has_vanished_and_can_be_released(world: BatchWorld) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    world.wait(backend, job)
    world.market.batch.forget(job.provider_id or "")
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED
    backend.release(job)


def test_a_job_that_waits_for_an_instance_holds_its_slot_and_is_released(
    market: AwsMarket, world: BatchWorld
) -> None:
    waiting = BatchWorld(market, world.folder, queue="waits")
    backend = waiting.connect()
    job = backend.submit(waiting.submission(Behaviour.RUNS_ON))
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    assert backend.free_slots() == waiting.slots - 1
    backend.release(job)
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED


def test_a_clock_that_is_wrong_ends_nothing(market: AwsMarket, world: BatchWorld) -> None:
    waits = BatchWorld(market, world.folder, queue="waits", start_within="PT10M")
    backend = waits.connect()
    job = backend.submit(waits.submission(Behaviour.RUNS_ON))
    detail = market.batch.jobs[str(job.provider_id)].detail
    now = detail["createdAt"]
    for hours in (-2, 2):
        market.ahead = timedelta(hours=hours)
        detail["createdAt"] = now + hours * 3_600_000
        assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
        detail["createdAt"] -= 11 * 60_000
        seen = backend.observe([job])[job.key]
        assert seen.event is JobEvent.PREEMPTED
        assert abs(seen.seen_at - datetime.now(UTC)) < timedelta(minutes=1)  # by our own clock
    backend.release(job)


def test_a_reservation_ends_by_our_own_clock(market: AwsMarket, world: BatchWorld) -> None:
    market.ahead = timedelta(hours=-2)
    end = datetime.now(UTC) + timedelta(hours=1)
    market.reservations = [
        Reservation(reservation_id="cr-0123", available=1, ends_at=end + market.ahead)
    ]
    ids = {"capacity_reservations": ["cr-0123"]}
    backend = BatchWorld(market, world.folder, bought=Market.RESERVED, **ids).connect()
    assert backend.free_slots() == 1
    assert abs(backend.said_end().at - end) < timedelta(seconds=5)  # headers have whole seconds


def test_a_job_that_no_instance_can_ever_run_fails_instead_of_waiting(
    market: AwsMarket, world: BatchWorld
) -> None:
    market.batch.waiting_reason = (
        "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher than that"
        " can be met by the CE(s) attached to the job queue."
    )
    stuck = BatchWorld(market, world.folder, queue="waits")
    backend = stuck.connect()
    job = backend.submit(stuck.submission(Behaviour.RUNS_ON))
    seen = backend.observe([job])[job.key]
    assert seen.event is JobEvent.FAILED
    assert "correct the pool's shape" in seen.detail
    backend.release(job)


def test_of_two_that_submit_at_once_the_older_job_stays(world: BatchWorld) -> None:
    submission = world.submission(Behaviour.RUNS_ON)
    backends = [world.connect(), world.connect()]
    world.market.meetings["batch:SubmitJob"] = Barrier(2)
    with ThreadPoolExecutor() as pool:
        jobs = list(pool.map(lambda backend: backend.submit(submission), backends))
    world.market.meetings.clear()
    rows = [
        job.detail
        for job in world.market.batch.jobs.values()
        if job.detail["jobName"] == naming.job_name(world.name, submission.key)
    ]
    assert len(rows) == 2
    assert jobs[0] == jobs[1]
    wait_for(lambda: sum(row["status"] == "RUNNING" for row in rows) == 1)
    assert list(backends[0].list_jobs()) == [jobs[0]]


def test_equal_jobs_share_one_definition_and_others_have_their_own(world: BatchWorld) -> None:
    backend = world.connect()
    base = world.submission(Behaviour.SUCCEEDS)
    larger = replace(base, key="dag/run/larger/-1/1", resources=Resources(cpus=2))
    again = replace(base, key="dag/run/again/-1/1")
    before = len(world.market.batch.definitions)
    for one in (base, larger, again):
        world.wait(backend, backend.submit(one))
    made = world.market.batch.definitions[before:]
    assert len({one["jobDefinitionName"] for one in made}) == len(made) <= 2
    assert all(one["revision"] == 1 for one in made)


def test_a_throttled_call_is_for_later_and_the_next_ones_are_not_made(world: BatchWorld) -> None:
    backend = world.connect()
    job = Job(key="dag/run/task/-1/1", provider_id="00000000-0000-0000-0000-000000000000")
    world.market.fail("batch:DescribeJobs", THROTTLED)
    with pytest.raises(TransientError, match="TooManyRequestsException") as told:
        backend.observe([job])
    assert told.value.retry_after is not None
    before = calls(world.market, "batch:DescribeJobs")
    with pytest.raises(TransientError, match="slow down") as told:
        backend.observe([job])
    assert told.value.retry_after is not None
    assert calls(world.market, "batch:DescribeJobs") == before


def test_a_request_that_got_no_answer_starts_one_job(world: BatchWorld) -> None:
    submission = world.submission(Behaviour.SUCCEEDS)
    broken = AwsError(
        code="ServerException",
        message="These errors are usually caused by a server issue",
        status=500,
    )
    world.market.fail("batch:SubmitJob", broken)
    with pytest.raises(TransientError) as failed:
        world.connect().submit(submission)
    assert failed.value.key == submission.key
    first = world.connect().submit(submission)
    assert world.connect().submit(submission) == first


@pytest.mark.parametrize(
    "permission",
    [
        "batch:DescribeJobDefinitions",
        "batch:ListJobs",
        "batch:RegisterJobDefinition",
        "batch:SubmitJob",
    ],
)
def test_a_missing_permission_is_named(world: BatchWorld, permission: str) -> None:
    world.market.deny(permission)
    unlike_others = replace(
        world.submission(Behaviour.SUCCEEDS), resources=Resources(memory_gib=len(permission))
    )
    with pytest.raises(AccessError, match=permission):
        world.connect().submit(unlike_others)


def test_wrong_credentials_are_told(world: BatchWorld) -> None:
    stranger = world.connect(connection=world.connection("AKIAANOTHERONEXAMPLE"))
    with pytest.raises(AccessError, match="renew the credentials"):
        stranger.observe([Job(key="dag/run/task/-1/1", provider_id="1")])


def test_an_endpoint_that_does_not_answer_says_nothing_of_a_job(world: BatchWorld) -> None:
    connection = replace(world.connection(), extra={"endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(TransientError, match="Could not connect"):
        world.connect(connection=connection).observe([Job(key="dag/run/task/-1/1")])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ServiceQuotaExceededException", AccessError),
        ("InsufficientInstanceCapacity", CapacityError),
        ("ServerException", TransientError),
    ],
)
def test_an_error_is_sorted_by_what_can_be_done(
    world: BatchWorld, code: str, kind: type[Exception]
) -> None:
    world.market.fail("batch:SubmitJob", AwsError(code=code, message="as it is"))
    with pytest.raises(kind, match=code):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))


def test_an_unknown_queue_is_refused_with_its_option(market: AwsMarket, world: BatchWorld) -> None:
    lost = BatchWorld(market, world.folder, queue="no-such-queue")
    with pytest.raises(RejectedError, match="correct the option queue"):
        lost.connect().submit(lost.submission(Behaviour.SUCCEEDS))


def test_a_submission_that_is_too_large_is_refused_before_it_is_sent(world: BatchWorld) -> None:
    with pytest.raises(RejectedError, match="write them to a file"):
        world.connect().submit(world.job_of("sample_jobs:echo", text="x" * 9000))


def test_a_gang_is_not_sent_to_a_spot_queue(market: AwsMarket, world: BatchWorld) -> None:
    spot = BatchWorld(market, world.folder, bought=Market.SPOT)
    gang = replace(spot.submission(Behaviour.MEETS), nodes=2)
    with pytest.raises(CapacityError, match="several nodes on spot"):
        spot.connect().submit(gang)


def test_a_pool_is_asked_for_no_more_than_its_placement_score_allows(
    market: AwsMarket, world: BatchWorld
) -> None:
    options = {"instance_type": "p5.48xlarge", "min_placement_score": 5}
    spot = BatchWorld(market, world.folder, bought=Market.SPOT, **options)
    market.scores[REGION] = 2
    backend = spot.connect()
    assert backend.free_slots() == 0
    market.scores[REGION] = 9
    asked_at = backend.room_said_at()
    clock = backend._clock
    backend._capacity._clock = lambda: clock() + timedelta(minutes=14)
    assert backend.free_slots() == 0, "the answer is kept for some minutes"
    assert backend.room_said_at() == asked_at
    backend = spot.connect()
    assert (backend.free_slots(), backend.room_said_at()) == (spot.slots, None)


def test_a_thousand_jobs_are_observed_in_ten_calls(world: BatchWorld) -> None:
    jobs = [Job(key=f"dag/run/task/{n}/1", provider_id=f"{n:036d}") for n in range(1000)]
    before = calls(world.market, "batch:DescribeJobs")
    seen = world.connect().observe(jobs)
    assert len(seen) == 1000
    assert calls(world.market, "batch:DescribeJobs") - before == 10


def test_the_job_carries_key_and_team_in_its_tags(market: AwsMarket, world: BatchWorld) -> None:
    tagged = BatchWorld(market, world.folder, tags={"team": "vision"})
    submission = tagged.submission(Behaviour.SUCCEEDS)
    job = tagged.connect().submit(submission)
    tags = market.batch.jobs[job.provider_id or ""].detail["tags"]
    assert tags["team"] == "vision"
    assert naming.key_of(tags) == submission.key


def test_credentials_never_travel(market: AwsMarket, world: BatchWorld) -> None:
    before = len(market.received)
    backend = world.connect()
    job = started(world)
    assert backend.list_jobs() == [job]
    backend.release(job)
    sent = b"\n".join(market.received[before:])
    assert market.batch.jobs[str(job.provider_id)].detail["jobName"].encode() in sent
    assert SECRET_KEY.encode() not in sent
    kept = [one.detail for one in market.batch.jobs.values()], market.batch.definitions
    assert SECRET_KEY not in str(kept)
    assert ACCESS_KEY not in str(kept)


def test_a_pool_without_a_queue_says_what_it_needs(market: AwsMarket, world: BatchWorld) -> None:
    with pytest.raises(SpecError, match="needs the option queue"):
        BatchWorld(market, world.folder, queue=None).connect()
    markets = {"on_demand": QUEUE}
    assert BatchWorld(market, world.folder, queue=None, queues=markets).connect().free_slots() == 2
