from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spillway.errors import TransientError
from spillway.model import JobEvent
from spillway.testing.backend_suite import TEXT, BackendContract, Behaviour, World
from spillway.testing.fake_backend import FakeBackend, FakeProvider
from spillway.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation


class FakeWorld(World):
    gangs = True

    def __init__(self) -> None:
        self.provider = FakeProvider(clock=ManualClock(), slots=self.slots)

    def connect(self) -> FakeBackend:
        return FakeBackend(self.provider)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"fake:{behaviour}"

    def store_url(self) -> str:
        return "file:///nowhere"

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent]) -> Observation:
        if job.key in self.provider.jobs:
            self._behave(job.key)
        seen = backend.observe([job])[job.key]
        assert seen.event in events
        return seen

    def _behave(self, key: str) -> None:
        match self.provider.jobs[key].submission.entry_point.partition(":")[2]:
            case Behaviour.SUCCEEDS | Behaviour.MEETS:
                self.provider.succeed(key)
            case Behaviour.FAILS_WITH_3:
                self.provider.fail(key, exit_code=3)
            case Behaviour.PRINTS:
                self.provider.print(key, TEXT)
                self.provider.succeed(key)
            case Behaviour.IS_PREEMPTED:
                self.provider.preempt(key)


class TestFakeBackend(BackendContract):
    @pytest.fixture
    def world(self) -> FakeWorld:
        return FakeWorld()

    def test_an_unreachable_provider_says_nothing_of_its_jobs(self, world: FakeWorld) -> None:
        backend = world.connect()
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        world.provider.is_reachable = False
        with pytest.raises(TransientError):
            backend.observe([job])
        world.provider.is_reachable = True
        assert backend.observe([job])[job.key].event is JobEvent.STARTED

    def test_a_lost_answer_starts_one_job_when_asked_again(self, world: FakeWorld) -> None:
        backend = world.connect()
        submission = world.submission(Behaviour.RUNS_ON)
        world.provider.loses_answers = True
        with pytest.raises(TransientError):
            backend.submit(submission)
        world.provider.loses_answers = False
        backend.submit(submission)
        assert world.provider.live == [submission.key]

    def test_a_forgotten_job_has_vanished(self, world: FakeWorld) -> None:
        backend = world.connect()
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        world.provider.forget(job.key)
        assert backend.observe([job])[job.key].event is JobEvent.VANISHED
