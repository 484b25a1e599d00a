"""The SkyPilot backend: each job on a cluster of its own, found again by a name that our key makes.

Clusters, and not SkyPilot's managed jobs: those go on by themselves after a preemption, wherever SkyPilot likes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.skypilot import naming, parse
from spillway.backends.skypilot.client import ApiServer
from spillway.backends.skypilot.failures import exception
from spillway.backends.skypilot.inventory import costs
from spillway.backends.skypilot.options import read_options
from spillway.backends.skypilot.parse import JobState
from spillway.backends.skypilot.render import configuration, launch
from spillway.backends.slots import check_slots
from spillway.backends.turns import Turns
from spillway.errors import BackendError, SpecError
from spillway.model import Market

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from spillway.backends.skypilot.inventory import ReportedCost
    from spillway.backends.skypilot.parse import Cluster, Request
    from spillway.model import Observation, Pool, Submission

MAX_LOG_BYTES: Final = 1 << 20
"""Largest piece of output returned at once."""

SUBMIT_SECONDS: Final = 3.0
"""How long a submission waits for a launch that fails at once, as one with a mistake does."""

RELEASE_SECONDS: Final = 5.0
"""How long a release waits for the machines to be gone; SkyPilot itself takes minutes, and goes on."""

_LAST_LINES: Final = 50
"""Where SkyPilot writes a job's exit code, at the end of its output."""


class SkyPilotBackend:
    """Jobs of one pool, through the API server that the connection names.

    Machines are there, and paid for, until they are released, or have been idle for as long as the pool says. There is no
    `free_slots`: SkyPilot learns of room at the attempt to have it.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,  # noqa: ARG002  # nothing is kept on this machine
        connection: Connection | None = None,
        server: ApiServer | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        submit_seconds: float = SUBMIT_SECONDS,
        release_seconds: float = RELEASE_SECONDS,
    ) -> None:
        if connection is None and server is None:
            raise SpecError(
                f"pool {pool.name!r} needs `connection:`, with the host of SkyPilot's API server and a token"
            )
        self._pool = pool
        self._options = options = read_options(pool)
        self._server = server or ApiServer(
            connection or Connection(), configuration=configuration(options)
        )
        self._clock = clock
        self._submit_seconds = submit_seconds
        self._release_seconds = release_seconds
        self._states: dict[str, JobState] = {}
        self._turns = Turns()
        self._output = ("", b"")

    def submit(self, submission: Submission) -> Job:
        """Have a cluster launched that runs the job, unless there is, or was, one of this key.

        Of two that do this at once, both launch; the machines are the same, and run the job once.

        Raises:
            CapacityError: Every slot of the pool is taken, or SkyPilot found no room at once.
            RejectedError: There is no such region or instance type, or SkyPilot refuses the request.
            AccessError: The token is not accepted, or SkyPilot has no access to the cloud.
            TransientError: SkyPilot could not be asked; call again with the same key.
        """
        try:
            return self._submit(submission)
        except BackendError as error:
            error.key = submission.key
            raise

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what SkyPilot says of each job, by key.

        One call tells which launches go on, and one which clusters there are, as of a minute ago. Of the clusters that are up,
        `look_at` are asked about their job, in turn; of those that are not, and that no launch is about to make, `look_at` are
        looked up, in turn.
        """
        names = {job.key: self._name(job.key) for job in jobs}
        if not names:
            return {}
        launching = self._launching()  # first: what has ended by then is in what is asked next
        clusters = self._server.clusters(sorted(names.values()))
        self._look_at(clusters)
        unclear = [
            name
            for name in names.values()
            if name not in launching and self._is_unclear(name, clusters.get(name))
        ]
        asked = launching | {name: self._history(name) for name in self._in_turn(unclear)}
        return {
            key: self._observation(name, clusters.get(name), asked.get(name))
            for key, name in names.items()
        }

    def release(self, job: Job) -> None:
        """Stop the launch, take the cluster down, and wait a few seconds for it to be gone.

        Raises:
            TransientError: SkyPilot could not be asked, or did not take it.
        """
        name = self._name(job.key)
        requests = self._server.requests(name)
        active = [one.id for one in requests if one.is_active and one.name == parse.LAUNCH]
        if active:
            self._server.cancel(active)
        if self._server.clusters([name]):
            self._take_down(name, requests)

    def list_jobs(self) -> Sequence[Job]:
        """Return every job of the pool whose machines are not released: those whose job has ended are paid for as well."""
        return [
            Job(key=one.key, provider_id=one.name)
            for one in self._clusters().values()
            if one.key is not None and one.pool == self._pool.name
        ]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on, whole characters only; nothing once the machines are gone."""
        data = self._output_of(self._name(job.key), offset + MAX_LOG_BYTES)
        text = data[offset : offset + MAX_LOG_BYTES].decode("utf-8", "ignore")
        return LogChunk(text=text, next_offset=offset + len(text.encode()))

    def costs(self, jobs: Sequence[Job]) -> Mapping[str, ReportedCost]:
        """Return what SkyPilot reckons that each job's machines have cost, by key; without those it does not know."""
        found = costs(self._server, [self._name(job.key) for job in jobs])
        return {job.key: found[name] for job in jobs if (name := self._name(job.key)) in found}

    def _name(self, key: str) -> str:
        return naming.cluster_name(self._pool.name, key)

    def _clusters(self) -> dict[str, Cluster]:
        """Return the pool's clusters, by name."""
        ours = naming.prefix(self._pool.name)
        found = self._server.clusters()
        return {name: one for name, one in found.items() if name.startswith(ours)}

    def _submit(self, submission: Submission) -> Job:
        body = launch(submission, self._options)  # refused before anything is sent
        name = self._name(submission.key)
        job = Job(key=submission.key, provider_id=name)
        clusters = self._clusters()
        if name in clusters or _was_launched(self._server.requests(name)):
            return job
        self._check_room(submission, clusters.values())
        self._wait_for_mistakes(name, self._server.launch(body))
        return job

    def _check_room(self, submission: Submission, clusters: Iterable[Cluster]) -> None:
        """Count the machines that there are, and those of launches that have not come so far yet."""
        ours = naming.prefix(self._pool.name)
        nodes = {
            one.cluster: one.nodes
            for one in self._server.requests()
            if one.name == parse.LAUNCH and one.cluster.startswith(ours)
        }
        check_slots(
            self._pool,
            submission,
            taken=sum((nodes | {one.name: one.nodes for one in clusters}).values()),
        )

    def _wait_for_mistakes(self, name: str, request: str) -> None:
        deadline = time.monotonic() + self._submit_seconds
        while time.monotonic() < deadline:
            (told,) = [one for one in self._server.requests(name) if one.id == request] or (None,)
            if told is None or not told.is_active:
                reason = self._server.failure_of(request)
                if reason is not None:
                    raise exception(reason)
                return
            time.sleep(0.1)  # the server has no call that waits for a moment only

    def _launching(self) -> dict[str, list[Request]]:
        """Return the launches that go on, by cluster."""
        found: defaultdict[str, list[Request]] = defaultdict(list)
        for one in self._server.requests():
            if one.name == parse.LAUNCH:
                found[one.cluster].append(one)
        return dict(found)

    def _in_turn(self, names: Iterable[str]) -> list[str]:
        """Return `look_at` of the names, those first that were not asked about for longest."""
        return self._turns.take(names, self._options.look_at)

    def _look_at(self, clusters: Mapping[str, Cluster]) -> None:
        """Ask some of the clusters that are up about their jobs."""
        running = self._in_turn(
            name
            for name, one in clusters.items()
            if one.status in parse.REACHABLE and not self._is_over(name)
        )
        for name, request in [(name, self._server.ask_job(name)) for name in running]:
            status = self._server.job_answer(request)
            if status is not None:
                self._states[name] = self._state(name, status)

    def _is_unclear(self, name: str, found: Cluster | None) -> bool:
        """Return whether a cluster is not up, or is and says nothing of its job."""
        is_up = found is not None and found.status in parse.REACHABLE
        return not is_up or (name in self._turns and name not in self._states)

    def _state(self, name: str, status: str) -> JobState:
        if status != "FAILED":
            return JobState(status=status)
        output = self._server.output(name, lines=_LAST_LINES)
        return JobState(status=status, exit_code=parse.exit_code(output))

    def _is_over(self, name: str) -> bool:
        state = self._states.get(name)
        return state is not None and state.status in parse.OVER

    def _observation(
        self, name: str, found: Cluster | None, requests: Sequence[Request] | None
    ) -> Observation:
        now = self._clock()
        seen = parse.observation(
            found=found,
            job=self._states.get(name),
            requests=requests,
            spot=self._pool.market is Market.SPOT,
            now=now + self._server.ahead,
            start_within=self._options.start_within,
        )
        return replace(seen, seen_at=now)

    def _history(self, name: str) -> list[Request]:
        """Return what was asked for a cluster, with why its launches failed."""
        return [
            replace(one, failure=self._server.failure_of(one.id))
            if one.name == parse.LAUNCH and one.status == "FAILED"
            else one
            for one in self._server.requests(name)
        ]

    def _take_down(self, name: str, requests: Iterable[Request]) -> None:
        if not any(one.is_active and one.name == "sky.down" for one in requests):
            self._server.down(name)
        deadline = time.monotonic() + self._release_seconds
        while self._server.clusters([name]) and time.monotonic() < deadline:
            time.sleep(0.2)  # the server has no call that waits for a moment only
        self._states.pop(name, None)

    def _output_of(self, name: str, size: int) -> bytes:
        """Return the job's output, at least its first `size` bytes if it has as many.

        SkyPilot sends all of it each time, so what was not shown yet is kept for the next piece.
        """
        kept_name, data = self._output
        if kept_name != name or len(data) < size:
            data = parse.spoken(self._server.output(name)).encode("utf-8", "replace")
        self._output = (name, data) if len(data) > size else ("", b"")
        return data


def _was_launched(requests: Iterable[Request]) -> bool:
    """Return whether a launch goes on or has succeeded; one that failed holds nothing, and may be tried again."""
    return any(
        one.name == parse.LAUNCH and (one.is_active or one.status == "SUCCEEDED")
        for one in requests
    )
