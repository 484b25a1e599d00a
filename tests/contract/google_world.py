"""Pools of a made-up Google Cloud that really runs its jobs, for the tests of the backends."""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.auth.credentials import AnonymousCredentials

from patience import LOOK_SECONDS, PATIENCE_SECONDS
from spillway.backends.google.batch.backend import GoogleBatchBackend
from spillway.backends.google.tpu.backend import GoogleTpuBackend
from spillway.backends.google.vertex.backend import GoogleVertexBackend
from spillway.backends.protocol import Connection
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import ENDS, Behaviour, World
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation, Submission
    from spillway.testing.google_server import GoogleServer

ENTRY_POINTS = Path(__file__).parent.parent / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.MEETS: "meet",
    Behaviour.IS_PREEMPTED: "preempt_itself",
}
CONNECTION = Connection(client=(AnonymousCredentials(), "our-project"))


class GoogleWorld(World):
    """A pool of its own, so that tests do not see each other's jobs."""

    backend = "google_batch"
    factory: Any = GoogleBatchBackend
    gangs = True

    def __init__(self, server: GoogleServer, folder: Path, **options: Any) -> None:
        self.server = server
        self.folder = folder
        self.name = f"contract-{uuid.uuid4().hex}"
        self.options = options
        self.port = free_port()

    def pool(self) -> Pool:
        return Pool(
            name=self.name,
            backend=self.backend,
            market=Market.SPOT,
            slots=self.slots,
            shape=Resources(),
            list_usd_per_hour=Decimal(1),
            options={
                "region": "us-central1",
                "image": "europe-docker.pkg.dev/our-project/jobs/spillway:1",
                "python": sys.executable,
                "environment": {
                    "PYTHONPATH": str(ENTRY_POINTS),
                    "SPILLWAY_GANG_PORT": str(self.port),
                },
                "endpoint": self.server.grpc_url,
                "logging_endpoint": self.server.grpc_url,
                "compute_endpoint": self.server.rest_url,
                **self.options,
            },
        )

    def connect(self, **arguments: Any) -> Any:
        arguments = {"connection": CONNECTION, **arguments}
        return self.factory(self.pool(), home=self.folder, **arguments)

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        return replace(super().submission(behaviour, key), pool=self.name)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.folder / "store").as_uri()

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent] = ENDS) -> Observation:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (seen := backend.observe([job])[job.key]).event not in events:
            assert time.monotonic() < deadline, f"it did not come true: {seen}"
            time.sleep(LOOK_SECONDS)
        return seen

    def release_all(self) -> None:
        backend = self.connect()
        for job in backend.list_jobs():
            backend.release(job)


class VertexWorld(GoogleWorld):
    """The same at Vertex AI."""

    backend = "google_vertex"
    factory = GoogleVertexBackend

    def __init__(self, server: GoogleServer, folder: Path, **options: Any) -> None:
        super().__init__(server, folder, **{"machine_type": "n1-standard-4", **options})


class TpuWorld(GoogleWorld):
    """The same at Cloud TPU."""

    backend = "google_tpu"
    factory = GoogleTpuBackend

    def __init__(self, server: GoogleServer, folder: Path, **options: Any) -> None:
        slices = {"1": "v5p-8", "2": "v5p-16"}
        own = {"zone": "us-east5-a", "slices": slices, "runtime_version": "v2-alpha-tpuv5"}
        super().__init__(server, folder, **{**own, "endpoint": server.rest_url, **options})


def live_and_die(world: GoogleWorld, backend: GoogleBatchBackend | GoogleVertexBackend) -> None:
    """Have one job fail, and another found again, listed and released twice."""
    failing = backend.submit(world.submission(Behaviour.FAILS_WITH_3))
    seen = world.wait(backend, failing)
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, 3)
    job = backend.submit(submission := world.submission(Behaviour.RUNS_ON))
    assert backend.submit(submission) == job
    assert list(backend.list_jobs()) == [job]
    backend.release(job)
    backend.release(job)
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED
