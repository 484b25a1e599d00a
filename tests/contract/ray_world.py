"""A pool of a real Ray cluster, for the tests of its backend."""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patience import LOOK_SECONDS, PATIENCE_SECONDS
from spillway.backends.protocol import Connection
from spillway.backends.ray_jobs.backend import RayBackend
from spillway.backends.ray_jobs.client import JobsClient
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import ENDS, Behaviour, World

if TYPE_CHECKING:
    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation, Submission
    from spillway.testing.ray_cluster import RayCluster

ENTRY_POINTS = Path(__file__).parent.parent / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.MEETS: "meet",
    Behaviour.IS_PREEMPTED: "preempt_itself",
}


class RayWorld(World):
    """A pool of its own, so that tests do not see each other's jobs."""

    def __init__(self, cluster: RayCluster, *, slots: int = 2, **options: Any) -> None:
        self.cluster = cluster
        self.slots = slots
        self.name = f"contract-{uuid.uuid4().hex}"
        self.options = options

    def pool(self, shape: Resources | None = None) -> Pool:
        return Pool(
            name=self.name,
            backend="ray",
            market=Market.PARTNER,
            slots=self.slots,
            shape=shape or Resources(),
            list_usd_per_hour=Decimal(1),
            options={
                "python": sys.executable,
                "environment": {"PYTHONPATH": str(ENTRY_POINTS)},
                **self.options,
            },
        )

    def connection(self) -> Connection:
        return Connection(host=self.cluster.url, password=self.cluster.token)

    def connect(
        self, client: JobsClient | None = None, shape: Resources | None = None
    ) -> RayBackend:
        return RayBackend(
            self.pool(shape),
            home=self.cluster.folder,
            connection=self.connection(),
            client=client or JobsClient(self.connection(), timeout_seconds=PATIENCE_SECONDS),
            release_seconds=PATIENCE_SECONDS,  # where the tests share a busy machine
        )

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        return replace(super().submission(behaviour, key), pool=self.name)

    def job_of(self, entry_point: str, **facts: Any) -> Submission:
        """Return a submission of another entry point."""
        return replace(self.submission(Behaviour.SUCCEEDS), entry_point=entry_point, **facts)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.cluster.folder / "store").as_uri()

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent] = ENDS) -> Observation:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (seen := backend.observe([job])[job.key]).event not in events:
            assert seen.event is None or seen.event not in ENDS, f"it ended otherwise: {seen}"
            assert time.monotonic() < deadline, f"it did not come true: {seen}"
            time.sleep(LOOK_SECONDS)
        return seen

    def release_all(self) -> None:
        backend = self.connect()
        for job in backend.list_jobs():
            backend.release(job)
