"""Stores fail, answer late or not at all, list late; writers die, race and run twice. What is found is always whole."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spillway.checkpoints import CheckpointName, FolderStore, claim, commit, latest, prune
from spillway.checkpoints.layout import claimed_tokens, manifest_names, manifest_path
from spillway.checkpoints.prune import STRAY_AGE
from spillway.errors import CheckpointError, FencedError, StoreError
from spillway.testing.stores import Died, InterruptedStore, LateStore, MemoryStore, die

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spillway.checkpoints import ObjectStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASK = "task"
MANY = 1000


def parts(name: CheckpointName, process: int = 1) -> dict[str, bytes]:
    """What a process saves; another process of the same lease saves something else under the same names."""
    return {"a": f"{process}: {name}".encode(), "b": f"{process}: {name} again".encode()}


def save(store: ObjectStore, name: CheckpointName, process: int = 1) -> None:
    commit(store, TASK, name, parts(name, process), now=NOW)


def name(token: int, step: int) -> CheckpointName:
    return CheckpointName(token=token, step=step)


def fail() -> None:
    raise StoreError("the store did not answer")


def interrupted_at_each(
    make: Callable[[], ObjectStore], interrupt: Callable[[ObjectStore], None], *, after: bool
) -> list[tuple[ObjectStore, InterruptedStore]]:
    """Return stores with a checkpoint of step 1, each with one that is interrupted at another operation of the next."""
    prepared = []
    for at in range(MANY):
        store = make()
        claim(store, TASK, 1)
        save(store, name(1, 1))
        wrapped = InterruptedStore(store, lambda store=store: interrupt(store), at=at, after=after)
        prepared.append((store, wrapped))
        counting = InterruptedStore(MemoryStore(), die, at=MANY)
        claim(counting._store, TASK, 1)
        save(counting, name(1, 2))
        if at == counting.operations - 1:
            return prepared
    raise AssertionError("a commit has no end")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("interrupt", [die, fail])
def test_in_a_folder_a_commit_that_is_cut_short_leaves_the_one_before_or_itself(
    tmp_path: Path, interrupt: Callable[[], None], after: bool
) -> None:
    folders = iter(tmp_path / str(number) for number in range(MANY))
    for store, wrapped in interrupted_at_each(
        lambda: FolderStore(next(folders)), lambda _: interrupt(), after=after
    ):
        with pytest.raises((Died, StoreError)):
            save(wrapped, name(1, 2))
        found = latest(store, TASK)
        assert found is not None
        assert found.skipped == ()
        assert dict(found.parts) == parts(found.name)
        save(store, name(1, 2))
        found = latest(store, TASK)
        assert found is not None
        assert found.name == name(1, 2)


@pytest.mark.parametrize("after", [False, True])
def test_a_lease_that_runs_twice_spoils_no_checkpoint_of_either_process(after: bool) -> None:
    """Both save the same step with other bytes; who was told that it is saved finds it."""
    for store, wrapped in interrupted_at_each(
        MemoryStore, lambda store: save(store, name(1, 2), process=2), after=after
    ):
        told: list[int] = [
            2
        ]  # the one that got in between was told so, or the test has failed there
        with suppress(StoreError):
            save(wrapped, name(1, 2), process=1)
            told.append(1)
        found = latest(store, TASK)
        assert found is not None
        assert (found.name, found.skipped) == (name(1, 2), ())
        assert dict(found.parts) in [parts(name(1, 2), process) for process in told]


@pytest.mark.parametrize("behind", range(12))
def test_a_listing_that_lags_finds_an_older_one_and_never_half_of_one(behind: int) -> None:
    store = MemoryStore()
    claim(store, TASK, 1)
    for step in (1, 2, 3):
        save(store, name(1, step))
    found = latest(LateStore(store, behind=behind), TASK)
    if found is not None:
        assert dict(found.parts) == parts(found.name)
        assert found.skipped == ()
    assert behind > 0 or (found is not None and found.name == name(1, 3))


def test_a_replaced_lease_that_lists_too_late_to_notice_saves_nothing_that_counts() -> None:
    store = MemoryStore()
    claim(store, TASK, 1)
    save(store, name(1, 1))
    claim(store, TASK, 2)
    late = LateStore(store, behind=1)
    assert claimed_tokens(late, TASK) == [1]
    with suppress(FencedError):  # its own objects push the claim into view sooner or later
        save(late, name(1, 9))
    found = latest(store, TASK)
    assert found is not None
    assert found.name == name(1, 1)


@pytest.mark.parametrize("keep", [1, 2])
def test_a_replaced_lease_that_lists_too_late_removes_what_is_begun_from_only_when_it_has_more(
    keep: int,
) -> None:
    store = MemoryStore()
    claim(store, TASK, 1)
    for step in (1, 2, 3):
        save(store, name(1, step))
    claim(store, TASK, 2)
    late = LateStore(store, behind=1, below=f"{TASK}/claims")
    for step in (4, 5):
        save(late, name(1, step))
        prune(late, TASK, keep=keep, verified=name(1, step), now=NOW)
    found = latest(store, TASK)
    assert found is not None
    assert found.name == name(1, 5)
    assert dict(found.parts) == parts(found.name)
    found = claim(store, TASK, 3)  # whose chain it is on from now on
    assert found is not None
    assert found.name == name(1, 5)
    save(store, name(3, 6))
    prune(store, TASK, keep=1, verified=name(3, 6), now=NOW)
    assert manifest_names(store, TASK) == [name(3, 6)]


def test_a_lease_that_was_skipped_stands_in_for_one_that_it_removed() -> None:
    """Two leases begin from the same checkpoint, and the first of them does not know of the second."""
    store = MemoryStore()
    claim(store, TASK, 1)
    save(store, name(1, 3))
    claim(store, TASK, 2)
    claim(store, TASK, 3)
    late = LateStore(store, behind=1, below=f"{TASK}/claims")
    save(late, name(2, 4))
    prune(late, TASK, keep=1, verified=name(2, 4), now=NOW)
    found = latest(store, TASK)
    assert found is not None
    assert found.name == name(2, 4)


def test_nothing_of_before_a_fresh_start_stands_in() -> None:
    store = MemoryStore()
    claim(store, TASK, 1)
    save(store, name(1, 3))
    claim(store, TASK, 2, fresh=True)
    assert latest(store, TASK) is None
    save(store, name(2, 1))
    claim(store, TASK, 3)
    store.delete(manifest_path(TASK, name(2, 1)))
    assert latest(store, TASK) is None


def test_pruning_removes_nothing_where_nothing_that_counts_is_whole() -> None:
    store = MemoryStore()
    claim(store, TASK, 1)
    save(store, name(1, 3))
    claim(store, TASK, 2)
    save(LateStore(store, behind=1, below=f"{TASK}/claims"), name(1, 4))
    store.delete(manifest_path(TASK, name(1, 3)))
    assert prune(store, TASK, keep=1, now=NOW).removed == ()
    found = latest(store, TASK)
    assert found is not None
    assert found.name == name(1, 4)


def test_parts_whose_manifest_is_not_listed_yet_are_not_taken_for_those_of_a_dead_commit() -> None:
    store = MemoryStore()
    claim(store, TASK, 1)
    save(store, name(1, 3))
    claim(store, TASK, 2)
    late = LateStore(store, behind=1, below=f"{TASK}/manifests")
    for now in (NOW, NOW + STRAY_AGE):
        prune(late, TASK, keep=1, now=now)
    found = latest(store, TASK)
    assert found is not None
    assert (found.name, found.skipped) == (name(1, 3), ())


class FaultyLife(RuleBasedStateMachine):
    """The model is what somebody was told: the newest checkpoint whose commit, or whose being begun from, was confirmed.

    What was confirmed is there; what is found may be newer, for a writer that was cut short may have got it done; and it
    is always, to the last byte, what one process saved under that name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.token = 0
        self.step = 0
        self.confirmed: CheckpointName | None = None
        self.is_pruned_by_others = False

    faults = st.tuples(
        st.sampled_from([fail, die]), st.integers(min_value=0, max_value=14), st.booleans()
    )

    below = st.sampled_from(["claims", "manifests", "parts"])

    def faulty(self, fault: tuple[Callable[[], None], int, bool]) -> InterruptedStore:
        interrupt, at, after = fault
        return InterruptedStore(self.store, interrupt, at=at, after=after)

    def next_name(self) -> CheckpointName:
        self.step += 1
        return name(self.token, self.step)

    @initialize()
    def begin_first(self) -> None:
        self.token = 1
        claim(self.store, TASK, 1)

    @rule(fault=faults)
    def begin(self, fault: tuple[Callable[[], None], int, bool]) -> None:
        self.token += 1
        with suppress(Died, StoreError):
            claim(self.faulty(fault), TASK, self.token)
        found = claim(self.store, TASK, self.token)  # started again
        self.check(found.name if found else None)
        self.confirmed = found.name if found else None

    @rule()
    def save(self) -> None:
        self.confirmed = self.next_name()
        save(self.store, self.confirmed)

    @rule(fault=faults, again=st.booleans())
    def save_to_a_store_that_fails(
        self, fault: tuple[Callable[[], None], int, bool], again: bool
    ) -> None:
        tried = self.next_name()
        with suppress(Died, StoreError):
            save(self.faulty(fault), tried)
            self.confirmed = tried
        if again:
            save(self.store, tried)
            self.confirmed = tried

    @rule(at=st.integers(min_value=0, max_value=14), after=st.booleans())
    def save_in_two_processes_of_one_lease(self, at: int, after: bool) -> None:
        tried = self.next_name()

        def save_too() -> None:
            save(self.store, tried, process=2)

        with suppress(StoreError):
            save(InterruptedStore(self.store, save_too, at=at, after=after), tried)
        self.confirmed = tried  # by one of them at least

    @precondition(lambda self: self.token > 1)
    @rule(
        data=st.data(),
        behind=st.integers(min_value=0, max_value=40),
        process=st.sampled_from([1, 2]),
    )
    def save_by_a_replaced_lease_that_lists_late(
        self, data: st.DataObject, behind: int, process: int
    ) -> None:
        self.step += 1
        stale = name(data.draw(st.integers(min_value=1, max_value=self.token - 1)), self.step)
        with suppress(CheckpointError):
            save(LateStore(self.store, behind=behind), stale, process)

    @precondition(lambda self: self.token > 1)
    @rule(data=st.data(), keep=st.integers(min_value=1, max_value=2))
    def save_and_prune_by_a_replaced_lease_that_does_not_know_it(
        self, data: st.DataObject, keep: int
    ) -> None:
        self.step += 1
        stale = name(data.draw(st.integers(min_value=1, max_value=self.token - 1)), self.step)
        newer = self.token - stale.token
        late = LateStore(self.store, behind=newer, below=f"{TASK}/claims")
        save(late, stale)
        prune(late, TASK, keep=keep, verified=stale, now=NOW)
        self.is_pruned_by_others = True

    @rule(keep=st.integers(min_value=1, max_value=3), behind=st.integers(0, 6), below=below)
    def save_and_prune(self, keep: int, behind: int, below: str) -> None:
        self.save()
        late = LateStore(self.store, behind=behind, below=f"{TASK}/{below}")
        prune(late, TASK, keep=keep, verified=self.confirmed, now=NOW)

    @rule(at=st.integers(min_value=0, max_value=14), after=st.booleans())
    def begin_while_the_one_before_saves(self, at: int, after: bool) -> None:
        tried = self.next_name()
        self.token += 1

        def begin() -> None:
            claim(self.store, TASK, self.token)

        with suppress(FencedError):
            save(InterruptedStore(self.store, begin, at=at, after=after), tried)
        found = claim(self.store, TASK, self.token)
        self.check(found.name if found else None)
        self.confirmed = found.name if found else None

    @rule(behind=st.integers(min_value=0, max_value=40))
    def read_while_listings_lag(self, behind: int) -> None:
        found = latest(LateStore(self.store, behind=behind), TASK)
        if found is not None:
            assert dict(found.parts) in [parts(found.name, process) for process in (1, 2)]

    @invariant()
    def what_is_found_is_whole_and_no_older_than_what_was_confirmed(self) -> None:
        found = latest(self.store, TASK)
        self.check(found.name if found else None)
        if found is not None:
            assert found.skipped == () or self.is_pruned_by_others
            assert dict(found.parts) in [parts(found.name, process) for process in (1, 2)]

    def check(self, found: CheckpointName | None) -> None:
        if self.confirmed is not None:
            assert found is not None
            assert found >= self.confirmed
        if found is not None and found != self.confirmed and not self.is_pruned_by_others:
            assert found.token in (self.token, self.token - 1)


TestFaultyLife = FaultyLife.TestCase
TestFaultyLife.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
