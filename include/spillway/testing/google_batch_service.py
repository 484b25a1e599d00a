"""Google Cloud Batch and Cloud Logging, made of the client libraries' own messages, as far as Google documents them."""

from __future__ import annotations

import re
import secrets
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from google.cloud import batch_v1
from google.cloud.logging_v2.types import ListLogEntriesResponse, LogEntry
from google.longrunning import operations_pb2

from spillway.testing.google_machines import Machine, Refusal, next_instant, page_of

if TYPE_CHECKING:
    from pathlib import Path

# Its members are messages' own enumeration, which type checkers take for numbers.
State: Any = batch_v1.JobStatus.State

LOCATIONS: Final = frozenset({"us-central1", "europe-west4"})
PREEMPTED: Final = 50001
_MAX_PAGE: Final = 1000


@dataclass
class Held:
    """One job, and the machines that run it."""

    job: Any
    machines: list[Machine] = field(default_factory=list[Machine])
    told: set[int] = field(default_factory=set[int])


class BatchService:
    """The service's state.

    Attributes:
        lack: What a new job is told instead of getting machines, such as a quota that is used up; None gives it machines.
        hides_exit_codes: Whether a job's events leave out what its tasks' events tell.
        page_size: Jobs on a page, at most.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: dict[str, Held] = {}
        self._requests: dict[str, str] = {}
        self._used: list[datetime] = []
        self.lack: str | None = None
        self.hides_exit_codes = False
        self.page_size = _MAX_PAGE

    def create(self, request: batch_v1.CreateJobRequest) -> Any:
        """Take a job in. A request that was made before answers as it did; a name is there once."""
        if request.request_id and request.request_id in self._requests:
            return self._jobs[self._requests[request.request_id]].job
        name = f"{request.parent}/jobs/{request.job_id}"
        self._check(request)
        if name in self._jobs:
            raise Refusal("ALREADY_EXISTS", f"Resource '{name}' already exists")
        job: Any = batch_v1.Job(request.job)
        job.name, job.uid = name, f"{request.job_id[:20]}-{secrets.token_hex(8)}"
        job.create_time = next_instant(self._used)
        self._jobs[name] = Held(job=job)
        self._move(job, State.QUEUED)
        self._requests[request.request_id] = name
        return job

    def get(self, request: batch_v1.GetJobRequest) -> Any:
        """Return one job."""
        return self._refreshed(self._held(request.name)).job

    def list_jobs(self, request: batch_v1.ListJobsRequest) -> batch_v1.ListJobsResponse:
        """Return a page of the jobs that have the labels of the filter."""
        _check_location(request.parent)
        wanted = re.findall(r'labels\.([\w-]+)="([^"]*)"', request.filter)
        jobs = [
            self._refreshed(held).job
            for name, held in self._jobs.items()
            if name.startswith(f"{request.parent}/")
            and all(held.job.labels.get(label) == value for label, value in wanted)
        ]
        jobs.sort(key=lambda job: job.create_time, reverse=request.order_by == "create_time desc")
        page, more = page_of(
            jobs, size=request.page_size, most=self.page_size, token=request.page_token
        )
        return batch_v1.ListJobsResponse(jobs=page, next_page_token=more)

    def tasks(self, request: batch_v1.ListTasksRequest) -> batch_v1.ListTasksResponse:
        """Return the tasks of a job, with their events."""
        held = self._held(request.parent.partition("/taskGroups/")[0])
        return batch_v1.ListTasksResponse(
            tasks=[
                batch_v1.Task(
                    name=f"{request.parent}/tasks/{index}",
                    status=batch_v1.TaskStatus(
                        status_events=[self._task_event(index, machine.exit_code)]
                    ),
                )
                for index, machine in enumerate(held.machines)
                if machine.exit_code is not None
            ]
        )

    def cancel(self, request: batch_v1.CancelJobRequest) -> operations_pb2.Operation:
        """End a job; one that has ended, or is being deleted, cannot be."""
        held = self._refreshed(self._held(request.name))
        over = {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.DELETION_IN_PROGRESS}
        if held.job.status.state in over:
            raise Refusal(
                "FAILED_PRECONDITION",
                f"Job is in {held.job.status.state.name} and cannot be cancelled",
            )
        self._move(held.job, State.CANCELLED)
        for machine in held.machines:
            machine.kill()
        return operations_pb2.Operation(name=f"operations/{secrets.token_hex(4)}", done=True)

    def delete(self, request: batch_v1.DeleteJobRequest) -> operations_pb2.Operation:
        """Forget a job."""
        held = self._held(request.name)
        for machine in held.machines:
            machine.kill()
        del self._jobs[request.name]
        return operations_pb2.Operation(name=f"operations/{secrets.token_hex(4)}", done=True)

    def log_entries(self, request: Any) -> ListLogEntriesResponse:
        """Return a page of the lines that a job printed, as the service writes them to Cloud Logging."""
        uid = re.search(r'labels\.job_uid="([^"]+)"', request.filter)
        since = re.search(r'timestamp>="([^"]+)"', request.filter)
        earliest = datetime.fromisoformat(since[1]) if since else None
        entries = [
            entry
            for held in self._jobs.values()
            if uid and held.job.uid == uid[1]
            for entry in _entries(held)
            if earliest is None or entry.timestamp >= earliest
        ]
        page, more = page_of(
            entries, size=request.page_size, most=self.page_size, token=request.page_token
        )
        return ListLogEntriesResponse(entries=page, next_page_token=more)

    def end_machines(self, exit_code: int) -> None:
        """End every machine that runs, as Batch tells it by a reserved exit code."""
        for held in self._jobs.values():
            for machine in held.machines:
                if machine.exit_code is None:
                    machine.kill(exit_code)

    def jobs(self) -> list[Any]:
        """Return all jobs, as they are."""
        return [held.job for held in self._jobs.values()]

    def close(self) -> None:
        """End all machines."""
        for held in self._jobs.values():
            for machine in held.machines:
                machine.kill()

    def _check(self, request: batch_v1.CreateJobRequest) -> None:
        _check_location(request.parent)
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", request.job_id):
            raise Refusal(
                "INVALID_ARGUMENT", f"field job_id has the invalid value {request.job_id!r}"
            )
        for name, value in request.job.labels.items():
            if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}", f"{name}={value}"):
                raise Refusal(
                    "INVALID_ARGUMENT", f"field job.labels has the invalid label {name}={value}"
                )
        if len(request.job.task_groups) != 1:
            raise Refusal("INVALID_ARGUMENT", "field job.task_groups must have one task group")

    def _held(self, name: str) -> Held:
        if name not in self._jobs:
            raise Refusal("NOT_FOUND", f"Resource '{name}' was not found")
        return self._jobs[name]

    def _refreshed(self, held: Held) -> Held:
        match held.job.status.state:
            case State.QUEUED if self.lack is None:
                self._start(held)
                self._move(held.job, State.RUNNING)
            case State.QUEUED:
                self._say(held.job, f"VM in Managed Instance Group meets error: {self.lack}")
            case State.RUNNING:
                self._look_at_machines(held)
        return held

    def _start(self, held: Held) -> None:
        group = held.job.task_groups[0]
        spec = group.task_spec
        container = spec.runnables[0].container
        folder = self._folder / held.job.uid
        folder.mkdir()
        variables = {"BATCH_JOB_UID": held.job.uid, "BATCH_TASK_COUNT": str(group.task_count)}
        if group.require_hosts_file:
            hosts = folder / "hosts"
            hosts.write_text("".join(f"{_host(index)}\n" for index in range(group.task_count)))
            variables["BATCH_HOSTS_FILE"] = str(hosts)
        held.machines = [
            Machine(
                [container.entrypoint or sys.executable, *container.commands],
                {**variables, **spec.environment.variables, "BATCH_TASK_INDEX": str(index)},
                output=folder / f"{index}.log",
            )
            for index in range(group.task_count)
        ]

    def _look_at_machines(self, held: Held) -> None:
        codes = [machine.exit_code for machine in held.machines]
        for index, code in enumerate(codes):
            if code and index not in held.told:
                held.told.add(index)
                if not self.hides_exit_codes:
                    held.job.status.status_events.append(self._task_event(index, code))
        if None not in codes:
            self._move(held.job, State.FAILED if any(codes) else State.SUCCEEDED)

    def _task_event(self, index: int, code: int | None) -> batch_v1.StatusEvent:
        why = "Spot VM preemption" if code == PREEMPTED else "task failure"
        return batch_v1.StatusEvent(
            type_="STATUS_CHANGED",
            description=f"Task state is updated from RUNNING to FAILED on zones/us-central1-a/instances/{index} due to {why}"
            f" with exit code {code}.",
            event_time=next_instant(self._used),
            task_execution=batch_v1.TaskExecution(exit_code=code or 0),
        )

    def _move(self, job: Any, state: Any) -> None:
        self._say(
            job,
            f"Job state is set from {job.status.state.name} to {state.name} for job {job.name}.",
        )
        job.status.state = state

    def _say(self, job: Any, description: str) -> None:
        job.status.status_events.append(
            batch_v1.StatusEvent(
                type_="STATUS_CHANGED",
                description=description,
                event_time=next_instant(self._used),
            )
        )


def _host(index: int) -> str:
    """Return a machine's name; only the first one's is ever looked up."""
    return "localhost" if index == 0 else f"member-{index}"


def _check_location(parent: str) -> None:
    if parent.rpartition("/")[2] not in LOCATIONS:
        raise Refusal("NOT_FOUND", f"Location {parent} is not found or access is unauthorized.")


def _entries(held: Held) -> list[Any]:
    """Return the lines of all machines; a millisecond apart, as they are not dated here."""
    lines = [
        (index, line) for index, machine in enumerate(held.machines) for line in machine.lines()
    ]
    return [
        LogEntry(
            insert_id=f"{held.job.uid}-{number}",
            timestamp=held.job.create_time + timedelta(milliseconds=number),
            labels={"job_uid": held.job.uid, "task_id": f"task/{index}"},
            text_payload=line,
        )
        for number, (index, line) in enumerate(lines)
    ]
