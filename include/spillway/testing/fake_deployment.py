"""A whole deployment on fake providers: pools, books, a store and a clock, and processes that can die at any call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.catalog.store_place import UNKNOWN_PLACE, StorePlace
from spillway.catalog.value_tables import ValueTables
from spillway.checkpoints import open_store
from spillway.dispatch import Dispatcher, Running, TaskRequest
from spillway.kept import at_once
from spillway.ledger import Ledger
from spillway.model import (
    Heartbeat,
    HourlyCommitment,
    Lease,
    Market,
    Pool,
    Resources,
    TaskKey,
    TaskSpec,
)
from spillway.runtime.exchange import ErrorRecord, Outcome, Result, write_heartbeat, write_result
from spillway.testing.fake_backend import FakeBackend, FakeProvider
from spillway.testing.ledger_samples import price_times_time
from spillway.testing.manual_clock import ManualClock
from spillway.testing.stores import Died

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from pydantic import JsonValue

    from spillway.backends.protocol import Backend
    from spillway.dispatch import Step

RESERVED: Final = Pool(
    name="reserved",
    backend="fake",
    market=Market.RESERVED,
    slots=1,
    shape=Resources(cpus=2.0, memory_gib=4.0),
    list_usd_per_hour=Decimal("0.90"),
    commitment=HourlyCommitment(usd_per_slot_hour=Decimal("0.50")),
)
SPOT: Final = replace(
    RESERVED,
    name="spot",
    market=Market.SPOT,
    slots=2,
    list_usd_per_hour=Decimal("0.30"),
    commitment=None,
)
ON_DEMAND: Final = replace(
    SPOT, name="on_demand", market=Market.ON_DEMAND, list_usd_per_hour=Decimal(1)
)
POOLS: Final = (RESERVED, SPOT, ON_DEMAND)
"""Cheapest first: one slot that is paid for already, two of spot, two on demand."""

SPEC: Final = TaskSpec(
    entry_point="package.module:train", work=timedelta(hours=1), checkpoints=True, max_attempts=3
)


@dataclass(kw_only=True)
class Fate:
    """When the process dies: at its call number `at`, counted from 0, before or after the call took effect.

    Attributes:
        at: None for a process that lives on.
        calls: How many calls it has made.
    """

    at: int | None = None
    after: bool = False
    calls: int = 0

    @contextmanager
    def call(self) -> Generator[None]:
        """Make one call to the world outside the process.

        Raises:
            Died: Here the process ends.
        """
        is_last = self.calls == self.at
        self.calls += 1
        if is_last and not self.after:
            raise Died
        yield
        if is_last:
            raise Died


@dataclass(kw_only=True)
class FatefulProvider(FakeProvider):
    """A provider whose caller may die at any call.

    Attributes:
        before_submit: What happens between our look at its room and our submission.
    """

    fate: Fate = field(default_factory=Fate)
    before_submit: Callable[[], None] | None = None

    @contextmanager
    def asked(self, call: str, key: str | None = None) -> Generator[None]:
        """Answer one call, unless its caller dies of it."""
        if call == "submit" and self.before_submit is not None:
            self.before_submit()
        with self.fate.call(), super().asked(call, key):
            yield


TABLES: Final = ValueTables(aside=at_once)
"""Of the policy over time; they take seconds to make, and do not depend on the deployment. Looks wait for them."""


class FakeDeployment:
    """Pools on providers in memory, books in SQLite, a store in a folder, and the time as it is told.

    Attributes:
        providers: By pool name; one provider a pool.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pools: Iterable[Pool] = POOLS,
        ledger: Ledger | None = None,
        store_place: StorePlace = UNKNOWN_PLACE,
        tables: ValueTables = TABLES,
    ) -> None:
        self.clock = ManualClock()
        self.tables = tables
        self.store_place = store_place
        self.pools = tuple(pools)
        self.providers = {
            pool.name: FatefulProvider(clock=self.clock, slots=pool.slots) for pool in self.pools
        }
        self.ledger = ledger or Ledger.open(f"sqlite:///{folder}/ledger.db")
        self.store_url = (folder / "store").as_uri()
        self.dispatcher = self.new_process()

    def new_process(self, fate: Fate | None = None) -> Dispatcher:
        """Return a dispatcher as another process would have it; calls of the one before are as if it were dead."""
        fate = fate or Fate()
        for provider in self.providers.values():
            provider.fate = fate
        return Dispatcher(
            pools=self.pools,
            ledger=cast("Ledger", _Fateful(self.ledger, fate)),
            store_url=self.store_url,
            backend_of=self._backend_of,
            store_place=self.store_place,
            tables=self.tables,
            clock=self.clock,
        )

    def request(self, name: str = "train", **changes: Any) -> TaskRequest:
        """Return the request of the task `name`."""
        task = TaskKey(dag_id="nightly", run_id="manual__2026", task_id=name)
        return TaskRequest(**{"task": task, "spec": SPEC, **changes})

    @property
    def live(self) -> list[str]:
        """Keys of all jobs that use capacity, whatever pool they are on."""
        return sorted(key for provider in self.providers.values() for key in provider.live)

    def say(self, lease: Lease, **facts: Any) -> None:
        """Let the lease's job write a heartbeat."""
        heartbeat = Heartbeat(token=lease.token, written_at=self.clock(), **facts)
        write_heartbeat(open_store(self.store_url), lease.submission.prefix, heartbeat)

    def succeed(self, lease: Lease, value: JsonValue = None) -> None:
        """Let the lease's job write its result and end well."""
        self._write_result(lease, Outcome.SUCCEEDED, value=value)
        self.providers[lease.pool].succeed(lease.key)

    def fail(self, lease: Lease, message: str) -> None:
        """Let the lease's job raise an error."""
        error = ErrorRecord(type="RuntimeError", message=message)
        self._write_result(lease, Outcome.FAILED, error=error)
        self.providers[lease.pool].fail(lease.key)

    def check_books(self, task: TaskKey) -> None:
        """Assert that the cost records of each ended lease cover exactly its time, at exactly its prices."""
        for lease in self.ledger.attempts(task):
            records = self.ledger.cost_records(lease.key)
            if lease.ended_at is None:
                assert not records, f"{lease.key} was charged while it was open"
                continue
            edges = [record.charge_period_start for record in records] + [lease.ended_at]
            assert edges[0] == lease.granted_at
            assert [record.charge_period_end for record in records] == edges[1:]
            leased = lease.ended_at - lease.granted_at
            for price, costs in (
                (lease.marginal_usd_per_hour, [record.marginal_cost for record in records]),
                (lease.effective_usd_per_hour, [record.effective_cost for record in records]),
                (lease.list_usd_per_hour, [record.list_cost for record in records]),
            ):
                assert sum(costs, Decimal(0)) == price_times_time(price, leased)

    def _backend_of(self, pool: Pool) -> Backend:
        return FakeBackend(self.providers[pool.name])

    def _write_result(self, lease: Lease, outcome: Outcome, **facts: Any) -> None:
        result = Result(token=lease.token, outcome=outcome, written_at=self.clock(), **facts)
        write_result(open_store(self.store_url), lease.submission.prefix, result)


def running(step: Step) -> Lease:
    """Return the lease of a step that has one: anything else fails the test."""
    assert isinstance(step, Running), step
    return step.lease


class _Fateful:
    """The ledger, for a process that may die at any call to it."""

    def __init__(self, ledger: Ledger, fate: Fate) -> None:
        self._ledger = ledger
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._fate.call():
                return method(*args, **kwargs)

        return call
