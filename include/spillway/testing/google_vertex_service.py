"""Custom jobs of Vertex AI, made of the client library's own messages, as far as Google documents them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from google.cloud import aiplatform_v1
from google.cloud.logging_v2.types import ListLogEntriesResponse, LogEntry
from google.protobuf.empty_pb2 import Empty
from google.rpc import status_pb2

from spillway.testing.google_batch_service import LOCATIONS
from spillway.testing.google_machines import Machine, Refusal, next_instant, page_of

if TYPE_CHECKING:
    from pathlib import Path

# Its members are messages' own enumeration, which type checkers take for numbers.
State: Any = aiplatform_v1.JobState
ENDED: Final = frozenset(
    {State.JOB_STATE_SUCCEEDED, State.JOB_STATE_FAILED, State.JOB_STATE_CANCELLED}
)
_MAX_PAGE: Final = 100


@dataclass
class HeldJob:
    """One job, and the machines that run it."""

    job: Any
    machines: list[Machine] = field(default_factory=list[Machine])


class VertexService:
    """The service's state.

    Attributes:
        queues: Whether new jobs wait for machines.
        page_size: Jobs on a page, at most.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: dict[str, HeldJob] = {}
        self._used: list[datetime] = []
        self.queues = False
        self.page_size = _MAX_PAGE

    def create(self, request: Any) -> Any:
        """Take a job in. The same request makes another job: Vertex knows no request ids."""
        if request.parent.rpartition("/")[2] not in LOCATIONS:
            raise Refusal("NOT_FOUND", f"Location {request.parent} is not found.")
        job: Any = aiplatform_v1.CustomJob(request.custom_job)
        number = 4_000_000_000 + len(self._jobs)
        job.name = f"{request.parent}/customJobs/{number}"
        job.create_time = next_instant(self._used)
        job.state = State.JOB_STATE_PENDING
        self._jobs[job.name] = HeldJob(job=job)
        return job

    def list_jobs(self, request: Any) -> Any:
        """Return a page of the jobs that the filter lets through."""
        if request.parent.rpartition("/")[2] not in LOCATIONS:
            raise Refusal("NOT_FOUND", f"Location {request.parent} is not found.")
        labels = re.findall(r"labels\.([\w-]+)=([\w-]+)", request.filter)
        unwanted = set(re.findall(r'state!="(\w+)"', request.filter))
        jobs = [
            held.job
            for held in map(self._refreshed, self._jobs.values())
            if all(held.job.labels.get(label) == value for label, value in labels)
            and held.job.state.name not in unwanted
        ]
        page, more = page_of(
            jobs, size=request.page_size, most=self.page_size, token=request.page_token
        )
        return aiplatform_v1.ListCustomJobsResponse(custom_jobs=page, next_page_token=more)

    def cancel(self, request: Any) -> Empty:
        """End a job; one that has ended stays as it is."""
        if request.name not in self._jobs:
            raise Refusal("NOT_FOUND", f"The CustomJob {request.name} does not exist.")
        held = self._refreshed(self._jobs[request.name])
        if held.job.state not in ENDED:
            held.job.state = State.JOB_STATE_CANCELLED
            for machine in held.machines:
                machine.kill()
        return Empty()

    def fail_all(self, message: str, code: int = 3) -> None:
        """Let every job that has not ended fail with an error of the service."""
        for held in self._jobs.values():
            if held.job.state not in ENDED:
                for machine in held.machines:
                    machine.kill()
                self._fail(held.job, message, code)

    def log_entries(self, request: Any) -> Any:
        """Return a page of the lines that a job printed."""
        number = re.search(r'resource\.labels\.job_id="(\d+)"', request.filter)
        since = re.search(r'timestamp>="([^"]+)"', request.filter)
        earliest = datetime.fromisoformat(since[1]) if since else None
        entries = [
            entry
            for name, held in self._jobs.items()
            if number and name.endswith(f"/{number[1]}")
            for entry in _entries(held)
            if earliest is None or entry.timestamp >= earliest
        ]
        page, more = page_of(
            entries, size=request.page_size, most=self.page_size, token=request.page_token
        )
        return ListLogEntriesResponse(entries=page, next_page_token=more)

    def jobs(self) -> list[Any]:
        """Return all jobs, as they are."""
        return [held.job for held in self._jobs.values()]

    def close(self) -> None:
        """End all machines."""
        for held in self._jobs.values():
            for machine in held.machines:
                machine.kill()

    def _refreshed(self, held: HeldJob) -> HeldJob:
        if held.job.state == State.JOB_STATE_PENDING and not self.queues:
            self._start(held)
            held.job.state = State.JOB_STATE_RUNNING
        elif held.job.state == State.JOB_STATE_RUNNING:
            codes = [machine.exit_code for machine in held.machines]
            failed = next((index for index, code in enumerate(codes) if code), None)
            if failed is not None:
                self._fail(held.job, _exit_message(failed, codes[failed] or 0), 3)
            elif None not in codes:
                held.job.state = State.JOB_STATE_SUCCEEDED
        return held

    def _start(self, held: HeldJob) -> None:
        folder = self._folder / f"vertex-{held.job.name.rpartition('/')[2]}"
        folder.mkdir()
        pools = held.job.job_spec.worker_pool_specs
        cluster = {
            f"workerpool{number}": [_host(number, index) for index in range(pool.replica_count)]
            for number, pool in enumerate(pools)
        }
        for number, pool in enumerate(pools):
            container = pool.container_spec
            for index in range(pool.replica_count):
                task = {"type": f"workerpool{number}", "index": index}
                variables = {one.name: one.value for one in container.env}
                variables["CLUSTER_SPEC"] = json.dumps({"cluster": cluster, "task": task})
                held.machines.append(
                    Machine(
                        [*(container.command or [sys.executable]), *container.args],
                        variables,
                        output=folder / f"{number}-{index}.log",
                    )
                )

    def _fail(self, job: Any, message: str, code: int) -> None:
        job.state = State.JOB_STATE_FAILED
        job.error = status_pb2.Status(code=code, message=message)


def _host(pool: int, index: int) -> str:
    """Return a worker's address; only the first one's is ever looked up."""
    return "localhost:2222" if pool == index == 0 else f"worker-{pool}-{index}:2222"


def _exit_message(replica: int, code: int) -> str:
    memory = " ran out-of-memory and" if code == 137 else ""
    return (
        f"The replica workerpool0-{replica}{memory} exited with a non-zero status of {code}."
        " Termination reason: Error. To find out more about why your job exited please check the logs"
    )


def _entries(held: HeldJob) -> list[Any]:
    """Return the lines of all machines; a millisecond apart, as they are not dated here."""
    lines = [line for machine in held.machines for line in machine.lines()]
    return [
        LogEntry(
            insert_id=f"{held.job.name}-{number}",
            timestamp=held.job.create_time + timedelta(milliseconds=number),
            json_payload={"message": line},
        )
        for number, line in enumerate(lines)
    ]
