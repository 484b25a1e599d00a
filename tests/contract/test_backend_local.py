from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from patience import LOOK_SECONDS, PATIENCE_SECONDS
from spillway.backends.local.backend import LocalBackend
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import BackendContract, Behaviour, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation

ENTRY_POINTS = Path(__file__).parent.parent / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.IS_PREEMPTED: "preempt_itself",
    Behaviour.MEETS: "meet",
}


class LocalWorld(World):
    gangs = True

    def __init__(self, home: Path) -> None:
        self.home = home
        self.pool = Pool(
            name="contract",
            backend="local",
            market=Market.ON_DEMAND,
            slots=self.slots,
            shape=Resources(),
            list_usd_per_hour=Decimal(1),
            options={"python_path": [str(ENTRY_POINTS)]},
        )

    def connect(self) -> LocalBackend:
        return LocalBackend(self.pool, home=self.home)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.home / "store").as_uri()

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent]) -> Observation:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (seen := backend.observe([job])[job.key]).event not in events:
            assert time.monotonic() < deadline, f"{job.key} is still {seen}"
            time.sleep(LOOK_SECONDS)
        return seen

    def release_all(self) -> None:
        backend = self.connect()
        for job in backend.list_jobs():
            backend.release(job)


class TestLocalBackend(BackendContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[LocalWorld]:
        world = LocalWorld(tmp_path / "home")
        yield world
        world.release_all()
