"""Any order of begins, looks, deaths, preemptions, clears, cancels and reconciliations: what holds, holds throughout.

The machine plays Airflow, the providers and misfortune. It keeps only what really became of each job, and after every
step holds the books and the providers against the invariants of the design.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from spillway.dispatch import Finished, Running, Step, TaskRequest, Waiting
from spillway.errors import LedgerError, TaskFailedError, TransientError
from spillway.ledger import Ledger
from spillway.model import Lease, LeaseState
from spillway.placement.lifecycle import is_final
from spillway.reconcile import reconcile
from spillway.testing.fake_deployment import POOLS, FakeDeployment, Fate
from spillway.testing.stores import Died

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASKS = ("sweep", "train")
PATIENCE = 6

worlds = count()
tasks = st.sampled_from(TASKS)
pools = st.sampled_from([pool.name for pool in POOLS])
indexes = st.integers(0, 2**16)
lives = st.just(Fate())
dies = st.builds(Fate, at=st.integers(0, 12), after=st.booleans())
fates = st.one_of(lives, lives, dies)


@dataclass(kw_only=True)
class Instance:
    """A task instance, as Airflow counts it."""

    name: str
    tries: int = 1
    clears: int = 0


class Road(RuleBasedStateMachine):
    """Two tasks on three pools, in a world of their own inside one ledger."""

    folder: ClassVar[Path]
    ledger: ClassVar[Ledger]

    def __init__(self) -> None:
        super().__init__()
        self.run_id = f"run-{next(worlds)}"
        self.world = FakeDeployment(
            self.folder / self.run_id,
            pools=[replace(pool, name=f"{pool.name}-{self.run_id}") for pool in POOLS],
            ledger=self.ledger,
        )
        self.instances = {name: Instance(name=name) for name in TASKS}
        self.truth: dict[str, LeaseState] = {}
        self.finished: set[str] = set()
        self.somebody_died = False

    # ---- Airflow ----------------------------------------------------------------------------------------------

    @rule(name=tasks, is_next_try=st.booleans(), fate=fates)
    def begin(self, name: str, is_next_try: bool, fate: Fate) -> None:
        """A worker begins a try, or begins the same one again."""
        self.instances[name].tries += is_next_try
        process = self.world.new_process(replace(fate))
        self.do(lambda: process.begin(self.request(name)))

    @rule(name=tasks, index=indexes, fate=fates)
    def advance(self, name: str, index: int, fate: Fate) -> None:
        """A worker looks at the task's lease, or at the one before, which was replaced."""
        request = self.request(name)
        if leases := self.ledger.attempts(request.task)[-2:]:
            process = self.world.new_process(replace(fate))
            self.do(lambda: process.advance(request, leases[index % len(leases)].key))

    @rule(name=tasks, fate=fates)
    def begin_from_before(self, name: str, fate: Fate) -> None:
        """A worker that should be dead begins a try that was replaced."""
        instance = self.instances[name]
        if instance.clears:
            process = self.world.new_process(replace(fate))
            stale = replace(self.request(name), owner_try=1, owner_clear=instance.clears - 1)
            with suppress(LedgerError):  # it hears that it was replaced
                self.do(lambda: process.begin(stale))

    @rule(name=tasks)
    def clear(self, name: str) -> None:
        """A person clears the task."""
        self.instances[name].clears += 1
        self.instances[name].tries += 1

    @rule(name=tasks, fate=fates)
    def cancel(self, name: str, fate: Fate) -> None:
        """A person ends the task."""
        process = self.world.new_process(replace(fate))
        self.do(lambda: process.cancel_task(self.request(name).task, detail="a person did"))

    @rule(wanted=st.sets(tasks), fate=fates)
    def reconcile(self, wanted: set[str], fate: Fate) -> None:
        """The reconciliation runs while Airflow wants only some tasks."""
        process = self.world.new_process(replace(fate))
        self.do(lambda: reconcile(process, lambda lease: lease.task.task_id in wanted))

    @rule(fate=fates)
    def observe(self, fate: Fate) -> None:
        """A triggerer looks at every lease that a task waits for, a pool at a time."""
        process = self.world.new_process(replace(fate))
        for pool in self.world.pools:
            watched = [
                lease
                for lease in self.ledger.open_leases(pool.name)
                if lease.state in (LeaseState.STARTING, LeaseState.RUNNING)
            ]
            self.do(lambda pool=pool, watched=watched: process.observe(pool.name, watched))

    # ---- the providers ----------------------------------------------------------------------------------------

    @rule(index=indexes, end=st.sampled_from(["succeed", "fail", "preempt", "forget"]))
    def job_ends(self, index: int, end: str) -> None:
        """A job ends, or its provider loses it."""
        if not self.world.live:
            return
        key = self.world.live[index % len(self.world.live)]
        lease = self.ledger.lease(key)
        match end:
            case "succeed":
                self.truth[key] = LeaseState.SUCCEEDED
                self.world.succeed(lease, key)
            case "fail":
                self.truth[key] = LeaseState.FAILED
                self.world.fail(lease, "as it happens")
            case "preempt":
                self.truth[key] = LeaseState.PREEMPTED
                self.world.providers[lease.pool].preempt(key)
            case _:
                self.truth[key] = LeaseState.VANISHED
                self.world.providers[lease.pool].forget(key)

    @rule(pool=pools, what=st.sampled_from(["is_silent", "is_full", "loses_answers"]))
    def provider_fails(self, pool: str, what: str) -> None:
        """A provider goes away, runs out of room, or answers into the void."""
        provider = self.world.providers[f"{pool}-{self.run_id}"]
        match what:
            case "is_silent":
                provider.is_reachable = False
            case "is_full":
                provider.has_capacity = False
            case _:
                provider.loses_answers = True

    @rule()
    def providers_recover(self) -> None:
        """Every provider is as it should be."""
        for provider in self.world.providers.values():
            provider.is_reachable = provider.has_capacity = True
            provider.loses_answers = False
            provider.before_submit = None

    @rule(pool=pools)
    def pool_fills_up_at_the_last_moment(self, pool: str) -> None:
        """Between our look at its room and our submission, somebody else takes the room; once."""
        provider = self.world.providers[f"{pool}-{self.run_id}"]

        def fill() -> None:
            provider.before_submit = None
            provider.has_capacity = False

        provider.before_submit = fill

    @rule(minutes=st.integers(0, 150))
    def time_passes(self, minutes: int) -> None:
        """Hours may pass between two calls."""
        self.world.clock.advance(timedelta(minutes=minutes))

    # ---- what holds -------------------------------------------------------------------------------------------

    @invariant()
    def no_task_has_two_open_leases_and_no_pool_more_than_slots(self) -> None:
        held = self.held()
        assert max(Counter(lease.task for lease in held).values(), default=0) <= 1
        for pool in self.world.pools:
            assert sum(lease.pool == pool.name for lease in held) <= pool.slots
            assert len(self.world.providers[pool.name].live) <= pool.slots

    @invariant()
    def no_job_outlives_its_lease_unless_somebody_died(self) -> None:
        if not self.somebody_died:
            assert set(self.world.live) <= {lease.key for lease in self.held()}

    @invariant()
    def what_the_books_say_of_a_job_is_what_became_of_it(self) -> None:
        """That a provider could not be asked is never taken for an end."""
        for lease in self.leases():
            if is_final(lease.state) and lease.state is not LeaseState.CANCELLED:
                assert self.truth.get(lease.key) is lease.state

    def teardown(self) -> None:
        """When the providers answer again, every task can be completed, and nothing is left of it."""
        self.providers_recover()
        reconcile(self.world.new_process(), lambda _: True)
        for name in TASKS:
            self.complete(name)
        for lease in self.leases():
            assert lease.ended_at is not None
        self.nothing_is_left_when_nobody_wants_it()

    def nothing_is_left_when_nobody_wants_it(self) -> None:
        for name in TASKS:
            self.clear(name)
            self.begin(name, is_next_try=True, fate=Fate())
        reconcile(self.world.new_process(), lambda _: False)
        assert self.world.live == []
        assert self.held() == []
        for name in TASKS:
            self.world.check_books(self.request(name).task)

    # ---- steps of the above -----------------------------------------------------------------------------------

    def do(self, call: Callable[[], object]) -> None:
        """Make the call; a process may die of it, or hear what it is allowed to hear."""
        try:
            step = call()
        except Died:
            self.somebody_died = True
        except (TransientError, TaskFailedError):
            pass
        else:
            if isinstance(step, Finished):
                assert self.truth[step.lease.key] is LeaseState.SUCCEEDED
                assert step.result == step.lease.key

    def complete(self, name: str) -> None:
        process = self.world.new_process()
        for _ in range(PATIENCE):
            self.instances[name].tries += 1
            request = self.request(name)
            try:
                step: Step = process.begin(request)
                if isinstance(step, Running):
                    self.truth[step.lease.key] = LeaseState.SUCCEEDED
                    self.world.succeed(step.lease, step.lease.key)
                    step = process.advance(request, step.lease.key)
            except TaskFailedError:
                continue  # what failed before is heard of now; the next try starts it anew
            if isinstance(step, Finished):
                return
            assert isinstance(step, Waiting | Running)
            self.world.clock.advance(timedelta(minutes=1))
        pytest.fail(f"{name} cannot be completed")

    def request(self, name: str) -> TaskRequest:
        instance = self.instances[name]
        request = self.world.request(name, owner_try=instance.tries, owner_clear=instance.clears)
        return replace(request, task=replace(request.task, run_id=self.run_id))

    def leases(self) -> list[Lease]:
        return [lease for name in TASKS for lease in self.ledger.attempts(self.request(name).task)]

    def held(self) -> list[Lease]:
        return [lease for lease in self.leases() if lease.ended_at is None]


def test_the_road_holds_whatever_happens_in_any_order(tmp_path: Path) -> None:
    Road.folder = tmp_path
    Road.ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    run_state_machine_as_test(
        Road,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
        ),
    )
