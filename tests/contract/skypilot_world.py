"""A pool behind SkyPilot's API, for the tests of its backend."""

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
from spillway.backends.skypilot.backend import SkyPilotBackend
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import ENDS, Behaviour, World
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation, Submission
    from spillway.testing.skypilot_server import FakeSkyPilot

ENTRY_POINTS = Path(__file__).parent.parent / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.MEETS: "meet",
    Behaviour.IS_PREEMPTED: "preempt_itself",
}


class SkyPilotWorld(World):
    """A pool of its own, so that tests do not see each other's jobs."""

    gangs = True

    def __init__(
        self, sky: FakeSkyPilot, folder: Path, *, market: Market = Market.SPOT, **options: Any
    ) -> None:
        self.sky = sky
        self.folder = folder
        self.market = market
        self.name = f"contract-{uuid.uuid4().hex}"
        self.options = {
            "cloud": "lambda",
            "region": "us-east-1",
            "instance_type": "gpu_8x_h100_sxm5",
            "python": sys.executable,
            "environment": {
                "PYTHONPATH": str(ENTRY_POINTS),
                "SPILLWAY_GANG_PORT": str(free_port()),
            },
            **options,
        }

    def pool(self) -> Pool:
        return Pool(
            name=self.name,
            backend="skypilot",
            market=self.market,
            slots=self.slots,
            shape=Resources(),
            list_usd_per_hour=Decimal(1),
            options=self.options,
        )

    def connect(self, **facts: Any) -> SkyPilotBackend:
        connection = Connection(host=self.sky.url, **facts)
        return SkyPilotBackend(self.pool(), home=self.folder, connection=connection)

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        return replace(super().submission(behaviour, key), pool=self.name, market=self.market)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.folder / "store").as_uri()

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
