"""The contract of SkyPilot on a make-believe API server, whose clusters really run their jobs; and what is its own."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest
import yaml

from contract.skypilot_world import SkyPilotWorld
from spillway.backends.protocol import Job
from spillway.backends.skypilot.naming import cluster_name
from spillway.errors import AccessError, CapacityError, RejectedError, TransientError
from spillway.model import JobEvent, Market
from spillway.testing.backend_suite import ENDS, BackendContract, Behaviour
from spillway.testing.skypilot_server import FakeSkyPilot, SkyRefusal, fake_skypilot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.skypilot.backend import SkyPilotBackend
    from spillway.model import Observation

STARTED = frozenset({JobEvent.STARTED})
LOOK = Counter({"/api/status": 1, "/status": 1, "/api/get": 1})
"""What one look asks, however many jobs there are."""


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeSkyPilot]:
    with fake_skypilot(tmp_path_factory.mktemp("sky")) as sky:
        yield sky


@pytest.fixture
def world(sky: FakeSkyPilot, tmp_path: Path) -> Iterator[SkyPilotWorld]:
    world = SkyPilotWorld(sky, tmp_path)
    yield world
    sky.holds, sky.refusal, sky.token, sky.throttle, sky.room = False, None, None, 0, 100
    sky.lingers = False
    sky.stop_all()


class TestSkyPilot(BackendContract):
    @pytest.fixture
    def world(self, world: SkyPilotWorld) -> SkyPilotWorld:
        return world

    def test_live_jobs_are_listed_under_our_key(self, world: SkyPilotWorld) -> None:  # type: ignore[override]
        """Differs: machines are there until they are released, whether their job has ended or not."""
        backend = world.connect()
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        over = backend.submit(world.submission(Behaviour.SUCCEEDS))
        world.wait(backend, over, ENDS)
        assert {one.key for one in world.connect().list_jobs()} == {job.key, over.key}
        backend.release(job)
        backend.release(over)
        assert list(backend.list_jobs()) == []

    def test_keys_of_all_kinds_name_different_jobs(self, world: SkyPilotWorld) -> None:  # type: ignore[override]
        """Differs: there is room for three that are not released."""
        world.slots = 3
        super().test_keys_of_all_kinds_name_different_jobs(world, world.connect())


def test_a_cluster_is_pinned_to_what_the_pool_says(sky: FakeSkyPilot, world: SkyPilotWorld) -> None:
    world.options |= {"labels": {"team": "vision"}, "idle": "PT15M", "workspace": "research"}
    submission = world.submission(Behaviour.RUNS_ON)
    world.connect().submit(submission)
    body = sky.launches[-1]
    task = yaml.safe_load(body["task"])
    name = cluster_name(world.name, submission.key)
    assert body["retry_until_up"] is False
    assert body["override_skypilot_config"] == {"active_workspace": "research"}
    assert task["resources"] == {
        "infra": "lambda/us-east-1",
        "instance_type": "gpu_8x_h100_sxm5",
        "use_spot": True,
        "labels": {"spillway-job": name, "team": "vision"},
        "autostop": {"idle_minutes": 15, "down": True},
    }
    assert task["envs"]["SPILLWAY_KEY"] == submission.key


def test_machines_that_are_taken_back_are_told_from_those_given_back(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    world.options["look_at"] = 1  # a loss does not wait for those that run to be asked
    backend = world.connect()
    taken, kept = (backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(2))
    for job in (taken, kept):
        world.wait(backend, job, STARTED)
    sky.preempt(str(taken.provider_id))
    seen = backend.observe([taken, kept])
    assert seen[taken.key].event is JobEvent.PREEMPTED
    assert seen[kept.key].event is JobEvent.STARTED
    backend.release(kept)
    assert world.connect().observe([kept])[kept.key].event is JobEvent.VANISHED


def test_machines_that_nobody_may_take_have_vanished(sky: FakeSkyPilot, tmp_path: Path) -> None:
    world = SkyPilotWorld(sky, tmp_path, market=Market.ON_DEMAND)
    backend = world.connect()
    gone, broken = (backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(2))
    sky.preempt(str(gone.provider_id))
    sky.break_up(str(broken.provider_id))
    seen = backend.observe([gone, broken])
    assert {one.event for one in seen.values()} == {JobEvent.VANISHED}
    world.release_all()


def test_machines_of_a_gang_that_break_up_are_a_preemption(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    backend = world.connect()
    job = backend.submit(replace(world.submission(Behaviour.RUNS_ON), nodes=2))
    world.wait(backend, job, STARTED)
    sky.break_up(str(job.provider_id))
    seen = backend.observe([job])[job.key]
    assert (seen.event, "some nodes are terminated" in seen.detail) == (JobEvent.PREEMPTED, True)


@pytest.mark.parametrize(
    ("status", "event"),
    [
        ("FAILED_SETUP", JobEvent.FAILED),
        ("FAILED_DRIVER", JobEvent.VANISHED),
        ("CANCELLED", JobEvent.CANCELLED),
        ("SETTING_UP", JobEvent.SUBMITTED),
        ("SOMETHING_NEW", None),
    ],
)
def test_states_of_jobs_are_told_apart(
    sky: FakeSkyPilot, world: SkyPilotWorld, status: str, event: JobEvent | None
) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    sky.set_job(str(job.provider_id), status)
    assert backend.observe([job])[job.key].event is event


def impatient(sky: FakeSkyPilot, world: SkyPilotWorld) -> SkyPilotBackend:
    """Return a backend that gives launches ten minutes, of a server that begins none."""
    sky.holds = True
    world.options["start_within"] = "PT10M"
    backend = world.connect()
    backend._submit_seconds = 0
    return backend


def test_how_long_a_launch_waits_goes_by_the_clock_that_stamps_it(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    backend = impatient(sky, world)
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=11), usegmt=True)
    hooks = backend._server._http.event_hooks
    backend._server._http.event_hooks = {
        **hooks,
        "response": [lambda answer: answer.headers.update({"Date": later})],
    }
    seen = backend.observe([job])[job.key]
    assert seen.event is JobEvent.PREEMPTED
    assert seen.seen_at < datetime.now(UTC) + timedelta(minutes=1)
    backend.release(job)
    sky.let_go()


def test_a_launch_that_waits_is_submitted_and_then_goes_elsewhere(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    backend = impatient(sky, world)
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    assert backend.submit(replace(world.submission(Behaviour.RUNS_ON, job.key))) == job
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    clock = backend._clock
    backend._clock = lambda: clock() + timedelta(minutes=11)
    assert backend.observe([job])[job.key].event is JobEvent.PREEMPTED
    backend.release(job)
    sky.let_go()
    assert sky.rows() == []
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED


def test_launches_on_their_way_take_slots(sky: FakeSkyPilot, world: SkyPilotWorld) -> None:
    sky.holds = True
    backend = world.connect()
    backend._submit_seconds = 0
    backend.submit(replace(world.submission(Behaviour.RUNS_ON), nodes=2))
    with pytest.raises(CapacityError, match="2 of its 2 slots"):
        backend.submit(world.submission(Behaviour.RUNS_ON))


def test_a_cloud_without_room_is_a_lack_of_capacity_that_leaves_nothing(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    backend = world.connect()
    submission = world.submission(Behaviour.SUCCEEDS)
    sky.room = 0
    with pytest.raises(CapacityError, match="lambda/us-east-1") as refusal:
        backend.submit(submission)
    assert refusal.value.key == submission.key
    assert sky.rows() == []
    sky.room = 1
    world.wait(backend, backend.submit(submission), ENDS)


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        (SkyRefusal("NoCloudAccessError", "Cloud access is not set up"), AccessError, "sky check"),
        (
            SkyRefusal("ResourcesUnavailableError", "Found no quota for ND96 in region eastus"),
            AccessError,
            "quota",
        ),
        (
            SkyRefusal("ResourcesUnavailableError", "failed due to invalid cloud credentials: x"),
            AccessError,
            "credentials",
        ),
        (
            SkyRefusal("ResourcesUnavailableError", "Catalog does not contain any instances"),
            RejectedError,
            "options",
        ),
        (SkyRefusal("ValueError", "Invalid instance type 'gpu_9x'"), RejectedError, "gpu_9x"),
        (SkyRefusal("RequestInterruptedError", "restarted"), TransientError, "later"),
        (SkyRefusal("SomethingNewError", "whatever"), TransientError, "whatever"),
    ],
)
def test_refusals_are_errors_by_what_to_do(
    sky: FakeSkyPilot,
    world: SkyPilotWorld,
    refusal: SkyRefusal,
    kind: type[Exception],
    words: str,
) -> None:
    sky.refusal = refusal
    submission = world.submission(Behaviour.RUNS_ON)
    with pytest.raises(kind, match=words):
        world.connect().submit(submission)
    backend = world.connect()
    job = Job(key=submission.key)
    assert backend.observe([job])[job.key].event in ENDS
    backend.release(job)


def test_two_that_launch_at_once_run_the_job_once(sky: FakeSkyPilot, world: SkyPilotWorld) -> None:
    """A second launch of a name is a second job on the same machines."""
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.SUCCEEDS))
    world.wait(backend, job)
    second = sky.run_again(str(job.provider_id))
    assert (second.returncode, b"does not run twice" in second.stdout) == (75, True)
    assert world.connect().observe([job])[job.key].event is JobEvent.SUCCEEDED


def look(
    sky: FakeSkyPilot, backend: SkyPilotBackend, jobs: Sequence[Job]
) -> tuple[Mapping[str, Observation], Counter[str]]:
    """Return what a look sees, and the calls that it makes."""
    del sky.calls[:]
    seen = backend.observe(jobs)
    return seen, Counter(sky.calls)


def test_calls_of_an_observation_do_not_grow_with_jobs(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    world.slots = 6
    world.options["look_at"] = 2
    backend = world.connect()
    jobs = [backend.submit(world.submission(Behaviour.SUCCEEDS)) for _ in range(6)]
    deadline = time.monotonic() + 60
    while any(one.codes() is None for one in sky._clusters.values()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ended = []
    for _ in range(3):
        seen, calls = look(sky, backend, jobs)
        ended.append(sum(one.event is JobEvent.SUCCEEDED for one in seen.values()))
        assert calls == LOOK + Counter({"/job_status": 2, "/api/get": 2})
    assert ended == [2, 4, 6]
    assert look(sky, backend, jobs)[1] == LOOK


def test_machines_on_their_way_are_seen_by_what_is_asked_of_all(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    sky.holds = True
    world.slots = 8
    backend = world.connect()
    backend._submit_seconds = 0
    jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(8)]
    seen, calls = look(sky, backend, jobs)
    assert {one.event for one in seen.values()} == {JobEvent.SUBMITTED}
    assert calls == LOOK


def test_machines_that_are_gone_at_once_are_looked_up_in_turn(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    world.slots = 4
    world.options["look_at"] = 2
    backend = world.connect()
    jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(4)]
    for job in jobs:
        sky.preempt(str(job.provider_id))
    ended: list[str] = []
    for _ in range(2):
        seen, calls = look(sky, backend, jobs)
        assert calls == LOOK + Counter({"/api/status": 2})
        assert {one.event for one in seen.values()} == {JobEvent.PREEMPTED, None}
        ended += [key for key, one in seen.items() if one.event is JobEvent.PREEMPTED]
    assert sorted(ended) == sorted(job.key for job in jobs)


def test_launches_that_fail_at_once_are_looked_up_in_turn(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    world.options["look_at"] = 2
    backend = world.connect()
    sky.refusal = SkyRefusal("NetworkError", "lost")
    jobs = []
    for _ in range(4):
        submission = world.submission(Behaviour.RUNS_ON)
        jobs.append(Job(key=submission.key))
        with pytest.raises(TransientError):
            backend.submit(submission)
    ended: list[str] = []
    for _ in range(2):
        seen, calls = look(sky, backend, jobs)
        assert calls == LOOK + Counter({"/api/status": 2, "/api/get": 2})
        ended += [key for key, one in seen.items() if one.event is JobEvent.PREEMPTED]
    assert sorted(ended) == sorted(job.key for job in jobs)


@pytest.mark.parametrize("market", [Market.SPOT, Market.ON_DEMAND])
def test_machines_that_are_being_taken_down_are_held_and_not_made_again(
    sky: FakeSkyPilot, world: SkyPilotWorld, market: Market
) -> None:
    world.market, world.slots = market, 1
    backend = world.connect()
    backend._release_seconds = 0
    submission = world.submission(Behaviour.RUNS_ON)
    job = backend.submit(submission)
    launches = len(sky.launches)
    sky.lingers = True
    del sky.calls[:]
    backend.release(job)
    backend.release(job)
    assert sky.calls.count("/down") == 1
    other = world.connect()
    assert other.submit(submission) == job
    with pytest.raises(CapacityError, match="1 of its 1 slots"):
        other.submit(world.submission(Behaviour.RUNS_ON))
    assert list(other.list_jobs()) == [job]
    sky.break_up(str(job.provider_id))
    seen = other.observe([job])[job.key]
    assert (seen.event, "machines are gone" in seen.detail) == (JobEvent.VANISHED, True)
    sky.finish_downs()
    assert other.observe([job])[job.key].event is JobEvent.VANISHED
    assert other.submit(submission) == job
    assert len(sky.launches) == launches
    assert list(other.list_jobs()) == []


def test_machines_that_end_themselves_still_say_how_their_job_ended(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    backend = world.connect()
    submission = world.submission(Behaviour.SUCCEEDS)
    job = backend.submit(submission)
    world.wait(backend, job)
    launches = len(sky.launches)
    sky.autostop(str(job.provider_id))
    other = world.connect()
    assert other.submit(submission) == job
    assert other.observe([job])[job.key].event is JobEvent.SUCCEEDED
    assert len(sky.launches) == launches


def test_a_launch_that_somebody_cancels_is_no_launch_that_waits(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    """Its half-made machines are there until somebody takes them down."""
    sky.holds = True
    backend = world.connect()
    backend._submit_seconds = 0
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    name = str(job.provider_id)
    backend._server.cancel([one.id for one in backend._server.requests(name)])
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED
    backend.release(job)
    assert sky.rows() == []


def test_what_clusters_have_cost_is_reported(sky: FakeSkyPilot, world: SkyPilotWorld) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    sky._clusters[str(job.provider_id)].launched_at -= 1000
    backend.release(job)
    cost = backend.costs([job, Job(key="never")])[job.key]
    assert cost.seconds >= 1000
    assert float(cost.usd) == pytest.approx(cost.seconds * 0.001)


def test_credentials_and_trouble_are_named(
    sky: FakeSkyPilot, world: SkyPilotWorld, tmp_path: Path
) -> None:
    sky.token = "sky_right"
    with pytest.raises(AccessError, match="service account"):
        world.connect(password="sky_wrong").observe([Job(key="a")])
    assert world.connect(password="sky_right").observe([Job(key="a")])["a"].event
    sky.throttle = 1
    with pytest.raises(TransientError) as told:
        world.connect(password="sky_right").observe([Job(key="a")])
    assert told.value.retry_after == timedelta(seconds=7)


def test_no_credentials_go_into_what_is_asked_for(sky: FakeSkyPilot, world: SkyPilotWorld) -> None:
    sky.token = "sky_right"
    headers = {"X-Proxy": "let me pass"}
    backend = world.connect(password=sky.token, extra={"headers": headers})
    job = backend.submit(world.submission(Behaviour.RUNS_ON))
    backend.observe([job])
    backend.release(job)
    asked = json.dumps([sky.launches[-1], *sky.bodies()])
    assert str(job.provider_id) in asked
    assert not [secret for secret in (sky.token, *headers.values()) if secret in asked]


def test_nobody_there_and_somebody_else_there_are_no_answer(
    sky: FakeSkyPilot, world: SkyPilotWorld
) -> None:
    url, sky.url = sky.url, "http://127.0.0.1:1"
    try:
        with pytest.raises(TransientError, match="did not answer"):
            world.connect().observe([Job(key="a")])
        sky.url = f"{url}/elsewhere"
        with pytest.raises((TransientError, RejectedError)):
            world.connect().list_jobs()
    finally:
        sky.url = url
