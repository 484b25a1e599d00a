"""Any order of grants, events, cancels, adoptions and ends, held against a model of the books in plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, ClassVar, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spillway.errors import LedgerError, PoolFullError
from spillway.model import JobEvent, LeaseState, TaskKey
from spillway.placement.lifecycle import is_final
from spillway.testing.ledger_samples import (
    EFFECTIVE,
    LIST,
    MARGINAL,
    NOON,
    price_times_time,
    sample_request,
    sample_task,
)

if TYPE_CHECKING:
    from spillway.ledger import Ledger

_SLOTS: Final = 3
_worlds = count()
_indexes: Final = st.integers(0, 2**16)
_tries: Final = st.integers(1, 3)


@dataclass(kw_only=True)
class ModelLease:
    """What the model believes of one lease."""

    key: str
    token: int
    task: TaskKey
    pool: str
    owner_try: int
    granted_at: datetime
    nodes: int
    state: LeaseState = LeaseState.GRANTED
    ended_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether its job is over."""
        return is_final(self.state)


class LeaseLife(RuleBasedStateMachine):
    """Three tasks, of one node or several, on two pools of three slots, in a world of their own inside one ledger."""

    ledger: ClassVar[Ledger]

    def __init__(self) -> None:
        super().__init__()
        self.world = f"world-{next(_worlds)}"
        self.now = NOON
        self.leases: list[ModelLease] = []

    def _held(self, pool: str) -> int:
        return sum(lease.nodes for lease in self.open if lease.pool == pool)

    @property
    def open(self) -> list[ModelLease]:
        """The leases that hold capacity."""
        return [lease for lease in self.leases if lease.ended_at is None]

    @rule(seconds=st.integers(0, 3 * 3600), microseconds=st.integers(0, 999_999))
    def time_passes(self, seconds: int, microseconds: int) -> None:
        """Let the clock of all callers go on."""
        self.now += timedelta(seconds=seconds, microseconds=microseconds)

    @rule(
        task=st.integers(0, 2),
        pool=st.sampled_from(["a", "b"]),
        owner_try=_tries,
        nodes=st.integers(1, _SLOTS),
    )
    def grant(self, task: int, pool: str, owner_try: int, nodes: int) -> None:
        """A task asks for a slot, or for several at once."""
        key = sample_task(f"task-{task}", run_id=self.world)
        pool = f"{self.world}-{pool}"
        request = sample_request(key, pool=pool, owner_try=owner_try, nodes=nodes)
        if any(lease.task == key for lease in self.open):
            with pytest.raises(LedgerError, match="already holds"):
                self.ledger.grant(request, slots=_SLOTS, now=self.now)
        elif self._held(pool) + nodes > _SLOTS:
            with pytest.raises(PoolFullError):
                self.ledger.grant(request, slots=_SLOTS, now=self.now)
        else:
            lease = self.ledger.grant(request, slots=_SLOTS, now=self.now)
            assert lease.number == 1 + sum(earlier.task == key for earlier in self.leases)
            assert all(lease.token > earlier.token for earlier in self.leases)
            self.leases.append(
                ModelLease(
                    key=lease.key,
                    token=lease.token,
                    task=key,
                    pool=pool,
                    owner_try=owner_try,
                    granted_at=self.now,
                    nodes=nodes,
                )
            )

    @precondition(lambda self: self.leases)
    @rule(index=_indexes, event=st.sampled_from(JobEvent))
    def event_arrives(self, index: int, event: JobEvent) -> None:
        """A provider reports something of some lease, perhaps long ended."""
        lease = self.leases[index % len(self.leases)]
        if not lease.is_over:
            if event is JobEvent.STARTED:
                if lease.state is not LeaseState.MOVING:
                    lease.state = LeaseState.RUNNING
            elif event is JobEvent.ASKED_TO_MOVE:
                lease.state = LeaseState.MOVING
            elif event is JobEvent.PREEMPTED and lease.state is LeaseState.MOVING:
                lease.state = LeaseState.MOVED
            elif event is not JobEvent.SUBMITTED:
                lease.state = LeaseState(event.value)
            elif lease.state is LeaseState.GRANTED:
                lease.state = LeaseState.STARTING
        assert self.ledger.record(lease.key, event, now=self.now).state is lease.state

    @precondition(lambda self: self.leases)
    @rule(index=_indexes)
    def end(self, index: int) -> None:
        """Somebody settles some lease, perhaps again, perhaps too early."""
        lease = self.leases[index % len(self.leases)]
        if not lease.is_over:
            with pytest.raises(LedgerError, match="cannot end"):
                self.ledger.end(lease.key, now=self.now)
            return
        lease.ended_at = lease.ended_at or self.now
        assert self.ledger.end(lease.key, now=self.now).ended_at == lease.ended_at

    @precondition(lambda self: self.leases)
    @rule(index=_indexes, owner_try=st.none() | _tries)
    def cancel(self, index: int, owner_try: int | None) -> None:
        """A try, or nobody in particular, gives a lease up."""
        lease = self.leases[index % len(self.leases)]
        cancelled = not lease.is_over and owner_try in (None, lease.owner_try)
        answer = self.ledger.cancel(lease.key, owner_try=owner_try, now=self.now, detail="enough")
        assert answer is cancelled
        if cancelled:
            lease.state = LeaseState.CANCELLED

    @precondition(lambda self: self.leases)
    @rule(index=_indexes, owner_try=_tries)
    def adopt(self, index: int, owner_try: int) -> None:
        """A try wants to answer for a lease."""
        lease = self.leases[index % len(self.leases)]
        adopted = self.ledger.adopt(lease.key, owner_try=owner_try, owner_clear=0)
        assert (adopted is not None) is (lease.ended_at is None and owner_try >= lease.owner_try)
        if adopted is not None:
            lease.owner_try = owner_try

    @invariant()
    def open_leases_are_the_models(self) -> None:
        """Nobody is forgotten, nobody is held twice, no pool is overbooked."""
        held = [lease for lease in self.ledger.open_leases() if lease.task.run_id == self.world]
        assert [(x.key, x.state, x.owner_try, x.slots) for x in held] == [
            (x.key, x.state, x.owner_try, x.nodes) for x in self.open
        ]
        for pool in {lease.pool for lease in held}:
            assert sum(lease.slots for lease in held if lease.pool == pool) <= _SLOTS
        assert len({lease.task for lease in held}) == len(held)

    def teardown(self) -> None:
        """Check the books of everything that ended."""
        for lease in self.leases:
            records = self.ledger.cost_records(lease.key)
            if lease.ended_at is None:
                assert not records
                continue
            edges = [record.charge_period_start for record in records] + [lease.ended_at]
            assert edges[0] == lease.granted_at
            assert [record.charge_period_end for record in records] == edges[1:]
            leased = lease.ended_at - lease.granted_at
            for price, costs in (
                (MARGINAL, [record.marginal_cost for record in records]),
                (EFFECTIVE, [record.effective_cost for record in records]),
                (LIST, [record.list_cost for record in records]),
            ):
                assert sum(costs, Decimal(0)) == price_times_time(price * lease.nodes, leased)
