"""Pools of an AWS that runs on this machine, for the tests of its backends."""

from __future__ import annotations

import sys
import time
import uuid
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from patience import LOOK_SECONDS, PATIENCE_SECONDS
from spillway.backends.aws_batch.backend import AwsBatchBackend
from spillway.backends.aws_sagemaker.backend import AwsSageMakerBackend
from spillway.backends.protocol import Connection
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.aws_market import ACCESS_KEY
from spillway.testing.backend_suite import ENDS, Behaviour, World
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation, Submission
    from spillway.testing.aws_market import AwsMarket

ENTRY_POINTS = Path(__file__).parent.parent / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.MEETS: "meet",
    Behaviour.IS_PREEMPTED: "preempt_itself",
}
ROLE = "arn:aws:iam::123456789012:role/spillway-training"
QUEUE = "spillway-on-demand"


class AwsWorld(World):
    """A pool of its own, so that tests do not see each other's jobs."""

    gangs = True
    backend: ClassVar[str]
    factory: ClassVar[Any]

    def __init__(
        self, market: AwsMarket, folder: Path, *, bought: Market = Market.ON_DEMAND, **options: Any
    ) -> None:
        self.market = market
        self.folder = folder
        self.bought = bought
        self.name = f"contract-{uuid.uuid4().hex}"
        self.options = options

    def pool(self) -> Pool:
        return Pool(
            name=self.name,
            backend=self.backend,
            market=self.bought,
            slots=self.slots,
            shape=Resources(),
            list_usd_per_hour=Decimal(1),
            options={**self.own_options(), **self.options},
        )

    def own_options(self) -> dict[str, Any]:
        return {
            "image": "registry.example/training:1",
            "python": sys.executable,
            "environment": {
                "PYTHONPATH": str(ENTRY_POINTS),
                "SPILLWAY_GANG_PORT": str(free_port()),
            },
        }

    def connection(self, access_key: str = ACCESS_KEY) -> Connection:
        return Connection(
            client=self.market.session(access_key), extra={"endpoint_url": self.market.url}
        )

    def connect(self, **arguments: Any) -> Any:
        arguments = {"connection": self.connection(), **arguments}
        return self.factory(self.pool(), home=self.folder, **arguments)

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        return replace(super().submission(behaviour, key), pool=self.name, market=self.bought)

    def job_of(self, entry_point: str, **arguments: Any) -> Submission:
        """Return a submission of another entry point."""
        base = self.submission(Behaviour.SUCCEEDS)
        return replace(base, entry_point=entry_point, arguments=arguments)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.folder / "store").as_uri()

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent] = ENDS) -> Observation:
        wait_for(lambda: backend.observe([job])[job.key].event in events)
        return backend.observe([job])[job.key]

    def release_all(self) -> None:
        self.market.allow_all()
        backend = self.connect()
        for job in backend.list_jobs():
            backend.release(job)


class BatchWorld(AwsWorld):
    """A pool on a queue that all share."""

    backend = "aws_batch"
    factory = AwsBatchBackend

    def __init__(self, market: AwsMarket, folder: Path, **more: Any) -> None:
        super().__init__(market, folder, **more)
        market.batch.queues.setdefault(QUEUE, 100)

    def own_options(self) -> dict[str, Any]:
        return {"queue": QUEUE, **super().own_options()}


class SageMakerWorld(AwsWorld):
    """A pool of training jobs."""

    backend = "aws_sagemaker"
    factory = AwsSageMakerBackend

    def own_options(self) -> dict[str, Any]:
        places = {"role": ROLE, "output": "s3://bucket/output"}
        return {"instance_type": "ml.p5.48xlarge", **places, **super().own_options()}


def wait_for(look: Callable[[], Any]) -> Any:
    """Return the first true answer of `look`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(LOOK_SECONDS)
    return seen
