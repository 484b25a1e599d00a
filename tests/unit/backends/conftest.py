from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from patience import PATIENCE_SECONDS
from spillway.backends.local.backend import LocalBackend
from spillway.backends.local.folders import JobFolder, PoolFolder
from spillway.checkpoints import open_store
from spillway.model import JobEvent, Market, Observation, Pool, Resources, Submission
from spillway.runtime.exchange import read_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.backends.protocol import Job
    from spillway.runtime.exchange import Result

ENTRY_POINTS = Path(__file__).parents[2] / "entry_points"
ENDS = frozenset(JobEvent) - {JobEvent.SUBMITTED, JobEvent.STARTED}


class Machine:
    """A local pool, and the means to watch it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = (home / "store").as_uri()

    def pool(self, **options: Any) -> Pool:
        return Pool(
            name="here",
            backend="local",
            market=Market.SPOT,
            slots=3,
            shape=Resources(),
            list_usd_per_hour=Decimal(1),
            grace_period=timedelta(seconds=1),
            options={"python_path": [str(ENTRY_POINTS)], **options},
        )

    def backend(
        self, clock: Callable[[], datetime] = lambda: datetime.now(UTC), **options: Any
    ) -> LocalBackend:
        return LocalBackend(self.pool(**options), home=self.home, clock=clock)

    def submission(
        self, function: str, *, token: int = 1, prefix: str = "task", **arguments: Any
    ) -> Submission:
        return Submission(
            key=f"dag/run/{uuid.uuid4().hex}/-1/{token}",
            pool="here",
            token=token,
            entry_point=f"sample_jobs:{function}",
            arguments=arguments,
            resources=Resources(),
            store=self.store,
            prefix=prefix,
            grace_period=timedelta(seconds=1),
        )

    def folder(self, job: Job) -> JobFolder:
        return PoolFolder(self.home, "here").job(job.key)

    def result(self, submission: Submission) -> Result:
        result = read_result(open_store(self.store), submission.prefix, submission.token)
        assert result is not None
        return result

    def wait(self, job: Job, events: frozenset[JobEvent] = ENDS) -> Observation:
        backend = self.backend()
        return wait_for(lambda: _if_among(backend.observe([job])[job.key], events))

    def wait_for(self, look: Callable[[], Any]) -> Any:
        return wait_for(look)

    def wait_until_started(self, job: Job) -> None:
        self.wait(job, frozenset({JobEvent.STARTED}))


def _if_among(seen: Observation, events: frozenset[JobEvent]) -> Observation | None:
    return seen if seen.event in events else None


def wait_for(look: Callable[[], Any]) -> Any:
    """Return the first true answer of `look`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return seen


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "home")
    yield machine
    backend = machine.backend()
    for job in backend.list_jobs():
        backend.release(job)
