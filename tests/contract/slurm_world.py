"""A pool of a real Slurm cluster, for the tests of its backend."""

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
from spillway.backends.slurm.backend import SlurmBackend
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import ENDS, Behaviour, World
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.backends.protocol import Backend, Job
    from spillway.backends.slurm.client import Client
    from spillway.model import Observation, Submission
    from spillway.testing.slurm_cluster import SlurmCluster

ENTRY_POINTS = Path(__file__).parent.parent / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.MEETS: "meet",
    Behaviour.IS_PREEMPTED: "preempt_itself",
}

# The nodes are this machine by other names, which do not resolve: members of a gang are told where the first one is.
PYTHON = """\
#!/bin/sh
[ "$SLURM_NNODES" = 1 ] || export SPILLWAY_GANG_HEAD=127.0.0.1 SPILLWAY_GANG_PORT={port} SPILLWAY_GANG_RANK="$SLURM_NODEID"
exec {python} "$@"
"""


class SlurmWorld(World):
    """A pool of its own, so that tests do not see each other's jobs; through the commands of this machine."""

    gangs = True

    def __init__(self, cluster: SlurmCluster, *, slots: int = 2, **options: Any) -> None:
        self.cluster = cluster
        self.slots = slots
        self.name = f"contract-{uuid.uuid4().hex}"
        self.shape = Resources()
        self.options = options
        self.python = cluster.jobs / f"python-{self.name}"
        self.python.write_text(PYTHON.format(port=free_port(following=1), python=sys.executable))
        self.python.chmod(0o755)

    def pool(self) -> Pool:
        return Pool(
            name=self.name,
            backend="slurm",
            market=Market.PARTNER,
            slots=self.slots,
            shape=self.shape,
            list_usd_per_hour=Decimal(1),
            options={
                "folder": str(self.cluster.jobs),
                "folder_here": str(self.cluster.jobs),
                "partition": "scavenge",
                "python": str(self.python),
                "environment": {"PYTHONPATH": str(ENTRY_POINTS)},
                "slurm_conf": str(self.cluster.conf),
                **self.options,
            },
        )

    def connection(self) -> Connection | None:
        return None

    def connect(self, client: Client | None = None) -> SlurmBackend:
        connection = self.connection()
        return SlurmBackend(
            self.pool(), home=self.cluster.folder, connection=connection, client=client
        )

    def submission(self, behaviour: Behaviour, key: str | None = None) -> Submission:
        return replace(super().submission(behaviour, key), pool=self.name)

    def job_of(self, entry_point: str, **arguments: Any) -> Submission:
        """Return a submission of another entry point."""
        base = self.submission(Behaviour.SUCCEEDS)
        return replace(base, entry_point=entry_point, arguments=arguments)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.cluster.folder / "store").as_uri()

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent] = ENDS) -> Observation:
        wait_for(lambda: backend.observe([job])[job.key].event in events)
        return backend.observe([job])[job.key]

    def release_all(self) -> None:
        backend = self.connect()
        for job in backend.list_jobs():
            backend.release(job)
        wait_for(lambda: not backend.list_jobs())


class RestWorld(SlurmWorld):
    """The same through slurmrestd."""

    def connection(self) -> Connection:
        token = self.cluster.token()
        return Connection(host=self.cluster.rest_url, login=self.cluster.user, password=token)


def wait_for(look: Callable[[], Any]) -> Any:
    """Return the first true answer of `look`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(LOOK_SECONDS)
    return seen
