"""The road on real processes of this machine: from trigger to first instruction, from preemption to first new step.

Each stands beside the same without a road: a plain Python process, and a plain restart of the same entry point.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from measurement import Baseline, Measurement

from spillway.backends.local.backend import LocalBackend
from spillway.checkpoints import open_store
from spillway.dispatch import Dispatcher, TaskRequest
from spillway.ledger import Ledger
from spillway.model import Market, Pool, Resources, TaskKey, TaskSpec
from spillway.reconcile import reconcile
from spillway.runtime.exchange import read_heartbeat
from spillway.testing.fake_deployment import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.model import Lease

ROUNDS = 3
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
ENTRY_POINTS = Path(__file__).parents[1] / "entry_points"
TASK = TaskKey(dag_id="bench", run_id="manual", task_id="road")
ON_DEMAND = Pool(
    name="on_demand",
    backend="local",
    market=Market.ON_DEMAND,
    slots=1,
    shape=Resources(cpus=2, memory_gib=4),
    list_usd_per_hour=Decimal(1),
    grace_period=timedelta(seconds=5),
    options={"python_path": [str(ENTRY_POINTS)]},
)
SPOT = replace(
    ON_DEMAND,
    name="spot",
    market=Market.SPOT,
    list_usd_per_hour=Decimal("0.1"),
    options={"interruptions": {"trace": [[2.0, 3600.0]]}},
)
COUNT = TaskSpec(
    entry_point="spillway.testing.entry_points:count",
    arguments={"steps": 10_000, "seconds_per_step": 0.01},
    checkpoints=True,
)
PLAIN = """
from datetime import timedelta
from spillway.runtime import Session
from spillway.testing.entry_points import count
count(Session.local({folder!r}, checkpoint_interval=timedelta(0)), steps={steps}, seconds_per_step=0.01)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder, and a deployment in it."""

    folder: Path
    dispatcher: Dispatcher


def run() -> list[Measurement]:
    """Measure a few rounds of each, and take the medians."""
    return [
        Measurement(
            name="trigger to first instruction of a job",
            value=median(first_instruction() for _ in range(ROUNDS)),
            unit="s",
            baseline=Baseline(
                name="python -c pass", value=median(plain_python() for _ in range(ROUNDS))
            ),
        ),
        Measurement(
            name=f"preemption to first new step elsewhere, looked for each {POLL_SECONDS} s",
            value=median(new_step_after_preemption() for _ in range(ROUNDS)),
            unit="s",
            baseline=Baseline(
                name="plain restart of the same entry point",
                value=median(new_step_after_restart() for _ in range(ROUNDS)),
            ),
        ),
    ]


def first_instruction() -> float:
    """Return the seconds from `begin` to the first line of the entry point, which writes a file."""
    with deployment(ON_DEMAND) as here:
        wrote = here.folder / "wrote"
        spec = TaskSpec(
            entry_point="sample_jobs:count_starts", arguments={"path": str(wrote)}, checkpoints=True
        )
        began = time.time()
        here.dispatcher.begin(TaskRequest(task=TASK, spec=spec))
        wait_for(lambda: wrote.exists() and wrote.stat().st_size)
        return wrote.stat().st_mtime - began


def plain_python() -> float:
    began = time.time()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.time() - began


def new_step_after_preemption() -> float:
    """Return the seconds from the last words of the job that was taken back to the first new step of the next."""
    with deployment(SPOT, ON_DEMAND) as here:
        request = TaskRequest(task=TASK, spec=COUNT)
        first = running(here.dispatcher.begin(request))

        def replaced() -> Lease | None:
            lease = running(here.dispatcher.advance(request, first.key))
            return lease if lease.key != first.key else None

        second = wait_for(replaced)
        last_words = here.dispatcher.heartbeat(first)
        assert last_words is not None
        assert second.pool == "on_demand"
        return (first_progress(here, second) - last_words.written_at).total_seconds()


def first_progress(here: Place, lease: Lease) -> datetime:
    def look() -> datetime | None:
        heartbeat = here.dispatcher.heartbeat(lease)
        return heartbeat and heartbeat.first_progress_at

    return wait_for(look)


def new_step_after_restart() -> float:
    with tempfile.TemporaryDirectory() as folder:
        plain_count(folder, steps=1)
        began = datetime.now(UTC)
        plain_count(folder, steps=2)
        heartbeat = read_heartbeat(open_store(Path(folder).resolve().as_uri()), "local", 2)
        assert heartbeat is not None
        assert heartbeat.first_progress_at is not None
        return (heartbeat.first_progress_at - began).total_seconds()


def plain_count(folder: str, *, steps: int) -> None:
    code = PLAIN.format(folder=folder, steps=steps)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def deployment(*pools: Pool) -> Iterator[Place]:
    """Give a deployment on this machine; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        dispatcher = Dispatcher(
            pools=pools,
            ledger=Ledger.open(f"sqlite:///{folder}/ledger.db"),
            store_url=(folder / "store").as_uri(),
            backend_of=lambda pool: LocalBackend(pool, home=folder),
        )
        try:
            yield Place(folder=folder, dispatcher=dispatcher)
        finally:
            reconcile(dispatcher, lambda _: False)
            dispatcher.ledger.close()


def wait_for(look: Callable[[], Any]) -> Any:
    """Return the first true answer of `look`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(POLL_SECONDS)
    return seen
