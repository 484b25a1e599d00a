"""What every backend must do. Subclass `BackendContract` and give it a fixture `world` that returns a `World`."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum

import pytest

from spillway.backends.protocol import (
    Backend,
    Job,
    SupportsCapacity,
    SupportsDatedCapacity,
    SupportsListing,
    SupportsLogs,
)
from spillway.errors import CapacityError, TransientError
from spillway.model import JobEvent, Observation, Resources, Submission

ENDS = frozenset(
    {
        JobEvent.SUCCEEDED,
        JobEvent.FAILED,
        JobEvent.PREEMPTED,
        JobEvent.VANISHED,
        JobEvent.CANCELLED,
    }
)
_RELEASES = 5

GONE = frozenset({JobEvent.VANISHED, JobEvent.CANCELLED})
"""What may be said of a job after its release: that it was cancelled, or that nobody knows it."""


class Behaviour(StrEnum):
    """What a job of the suite does."""

    SUCCEEDS = "succeeds"
    FAILS_WITH_3 = "fails_with_3"
    RUNS_ON = "runs_on"
    PRINTS = "prints"
    """Prints `TEXT`, then succeeds."""
    MEETS = "meets"
    """Succeeds on every node of a gang, once all nodes have met; fails where there is no gang."""
    IS_PREEMPTED = "is_preempted"


TEXT = "first line\nsecond line: \u00e4\u20ac\U0001f600\n"


class World(ABC):
    """A provider for the suite, with two slots, and a way to reach it.

    Attributes:
        gangs: Whether it runs jobs of several nodes.
    """

    slots = 2
    gangs = False

    @abstractmethod
    def connect(self) -> Backend:
        """Return a new backend, as a process that made none of the earlier calls would have it."""

    @abstractmethod
    def entry_point(self, behaviour: Behaviour) -> str:
        """Return the entry point of jobs that behave so."""

    @abstractmethod
    def store_url(self) -> str:
        """Return the URL of a checkpoint store that the jobs can reach."""

    @abstractmethod
    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent]) -> Observation:
        """Let time pass until the job is seen with one of `events`, and return that; fail when it takes too long."""

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        """Return a submission that no other test uses."""
        key = key or f"dag/manual__2026-01-01T00:00:00+00:00/{uuid.uuid4().hex}/-1/1"
        return Submission(
            key=key,
            pool="contract",
            token=1,
            entry_point=self.entry_point(behaviour),
            arguments={},
            resources=Resources(),
            store=self.store_url(),
            prefix=uuid.uuid4().hex,
            grace_period=timedelta(seconds=2),
        )


class BackendContract:
    """Tests that every backend passes."""

    @pytest.fixture
    def backend(self, world: World) -> Backend:
        return world.connect()

    def test_a_job_runs_to_its_end(self, world: World, backend: Backend) -> None:
        job = backend.submit(world.submission(Behaviour.SUCCEEDS))
        seen = world.wait(backend, job, ENDS)
        assert (seen.event, seen.exit_code) == (JobEvent.SUCCEEDED, 0)

    def test_a_failure_keeps_its_exit_code(self, world: World, backend: Backend) -> None:
        job = backend.submit(world.submission(Behaviour.FAILS_WITH_3))
        seen = world.wait(backend, job, ENDS)
        assert (seen.event, seen.exit_code) == (JobEvent.FAILED, 3)

    def test_an_end_stays(self, world: World, backend: Backend) -> None:
        job = backend.submit(world.submission(Behaviour.SUCCEEDS))
        world.wait(backend, job, ENDS)
        backend.release(job)
        assert backend.observe([job])[job.key].event in {JobEvent.SUCCEEDED, JobEvent.VANISHED}

    def test_the_same_key_is_the_same_job(self, world: World, backend: Backend) -> None:
        submission = world.submission(Behaviour.RUNS_ON)
        first = backend.submit(submission)
        world.wait(backend, first, frozenset({JobEvent.STARTED}))
        assert backend.submit(submission) == first
        assert world.connect().submit(submission) == first
        if isinstance(backend, SupportsListing):
            assert list(backend.list_jobs()) == [first]

    def test_the_same_key_does_not_run_again_after_its_end(
        self, world: World, backend: Backend
    ) -> None:
        submission = world.submission(Behaviour.SUCCEEDS)
        job = backend.submit(submission)
        world.wait(backend, job, ENDS)
        assert backend.submit(submission) == job
        assert backend.observe([job])[job.key].event is JobEvent.SUCCEEDED

    def test_another_process_finds_the_job(self, world: World, backend: Backend) -> None:
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        other = world.connect()
        world.wait(
            other, Job(key=job.key, provider_id=job.provider_id), frozenset({JobEvent.STARTED})
        )
        other.release(job)
        assert world.wait(backend, job, ENDS).event in GONE

    def test_a_job_that_was_never_submitted_has_vanished(self, backend: Backend) -> None:
        unknown = Job(key="dag/run/never submitted/-1/1")
        assert backend.observe([unknown])[unknown.key].event is JobEvent.VANISHED

    def test_many_jobs_are_observed_at_once(self, world: World, backend: Backend) -> None:
        jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(world.slots)]
        unknown = Job(key="dag/run/unknown/-1/1")
        for job in jobs:
            world.wait(backend, job, frozenset({JobEvent.STARTED}))
        seen = backend.observe([*jobs, unknown])
        assert {key: one.event for key, one in seen.items()} == {
            **{job.key: JobEvent.STARTED for job in jobs},
            unknown.key: JobEvent.VANISHED,
        }

    def test_nothing_is_observed_of_no_jobs(self, backend: Backend) -> None:
        assert dict(backend.observe([])) == {}

    def test_a_released_job_is_gone(self, world: World, backend: Backend) -> None:
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        world.wait(backend, job, frozenset({JobEvent.STARTED}))
        backend.release(job)
        assert world.wait(backend, job, ENDS).event in GONE

    def test_releasing_at_once_leaves_nothing_running(self, world: World, backend: Backend) -> None:
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        _let_go(backend, job)
        assert world.wait(backend, job, ENDS).event in GONE

    def test_releasing_twice_is_no_error(self, world: World, backend: Backend) -> None:
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        _let_go(backend, job)
        backend.release(job)
        world.connect().release(job)
        backend.release(Job(key="dag/run/never submitted/-1/1"))

    def test_a_full_pool_has_no_room_until_a_job_is_released(
        self, world: World, backend: Backend
    ) -> None:
        jobs = [backend.submit(world.submission(Behaviour.RUNS_ON)) for _ in range(world.slots)]
        one_more = world.submission(Behaviour.RUNS_ON)
        with pytest.raises(CapacityError) as refusal:
            backend.submit(one_more)
        assert refusal.value.key == one_more.key
        assert backend.observe([Job(key=one_more.key)])[one_more.key].event is JobEvent.VANISHED
        _release(world, backend, jobs[0])
        world.wait(backend, backend.submit(one_more), frozenset({JobEvent.STARTED}))

    def test_a_full_pool_still_knows_its_jobs(self, world: World, backend: Backend) -> None:
        submissions = [world.submission(Behaviour.RUNS_ON) for _ in range(world.slots)]
        jobs = [backend.submit(submission) for submission in submissions]
        assert [backend.submit(submission) for submission in submissions] == jobs

    def test_keys_of_all_kinds_name_different_jobs(self, world: World, backend: Backend) -> None:
        names = ["a/b c/\u00fc/0/1", "a/b-c/\u00fc/0/1", "../a/" + "long" * 100]
        base = world.submission(Behaviour.SUCCEEDS)
        jobs = []
        for name in names:
            jobs.append(backend.submit(replace(base, key=name)))
            assert world.wait(backend, jobs[-1], ENDS).event is JobEvent.SUCCEEDED
        assert [job.key for job in jobs] == names

    def test_a_preemption_is_told_from_a_failure(self, world: World, backend: Backend) -> None:
        job = backend.submit(world.submission(Behaviour.IS_PREEMPTED))
        assert world.wait(backend, job, ENDS).event is JobEvent.PREEMPTED

    def test_the_nodes_of_a_gang_meet_and_end_as_one_job(
        self, world: World, backend: Backend
    ) -> None:
        if not world.gangs:
            pytest.skip("the backend runs no gangs")
        job = backend.submit(replace(world.submission(Behaviour.MEETS), nodes=world.slots))
        seen = world.wait(backend, job, ENDS)
        assert (seen.event, seen.exit_code) == (JobEvent.SUCCEEDED, 0)

    def test_a_gang_takes_a_slot_for_each_node_or_none(
        self, world: World, backend: Backend
    ) -> None:
        if not world.gangs:
            pytest.skip("the backend runs no gangs")
        gang = replace(world.submission(Behaviour.RUNS_ON), nodes=world.slots)
        single = world.submission(Behaviour.RUNS_ON)
        held = backend.submit(single)
        with pytest.raises(CapacityError):
            backend.submit(gang)
        assert backend.observe([Job(key=gang.key)])[gang.key].event is JobEvent.VANISHED
        _release(world, backend, held)
        world.wait(backend, backend.submit(gang), frozenset({JobEvent.STARTED}))
        if isinstance(backend, SupportsCapacity):
            assert backend.free_slots() == 0
        backend.release(Job(key=gang.key))
        assert world.wait(backend, Job(key=gang.key), ENDS).event in GONE

    def test_free_slots_are_those_not_taken(self, world: World, backend: Backend) -> None:
        if not isinstance(backend, SupportsCapacity):
            pytest.skip("the backend does not say how much room it has")
        assert backend.free_slots() == world.slots
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        assert backend.free_slots() == world.slots - 1
        if isinstance(backend, SupportsDatedCapacity):
            said_at = backend.room_said_at()
            assert said_at is None or said_at.utcoffset() == timedelta(0)
        _release(world, backend, job)
        assert backend.free_slots() == world.slots

    def test_live_jobs_are_listed_under_our_key(self, world: World, backend: Backend) -> None:
        if not isinstance(backend, SupportsListing):
            pytest.skip("the backend does not list its jobs")
        job = backend.submit(world.submission(Behaviour.RUNS_ON))
        over = backend.submit(world.submission(Behaviour.SUCCEEDS))
        world.wait(backend, over, ENDS)
        assert [listed.key for listed in world.connect().list_jobs()] == [job.key]  # type: ignore[attr-defined]  # asked above
        _release(world, backend, job)
        assert list(backend.list_jobs()) == []

    def test_output_is_read_on_from_an_offset(self, world: World, backend: Backend) -> None:
        if not isinstance(backend, SupportsLogs):
            pytest.skip("the backend does not show output")
        job = backend.submit(world.submission(Behaviour.PRINTS))
        world.wait(backend, job, ENDS)
        text, offset = "", 0
        while (chunk := backend.read_log(job, offset)).text:
            text, offset = text + chunk.text, chunk.next_offset
        assert TEXT in text
        assert backend.read_log(job, offset).text == ""
        assert backend.read_log(Job(key="dag/run/never submitted/-1/1"), 0).text == ""


def _release(world: World, backend: Backend, job: Job) -> None:
    """Release the job, and wait until it is gone: a busy provider takes its time."""
    _let_go(backend, job)
    world.wait(backend, job, ENDS)


def _let_go(backend: Backend, job: Job) -> None:
    """Release the job, again where it takes longer to be gone than one call may block, as callers do."""
    for _ in range(_RELEASES):
        with suppress(TransientError):
            backend.release(job)
            return
    backend.release(job)
