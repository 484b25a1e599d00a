"""Every way in which a commit can be cut short, enumerated: what is found after is whole, and old or new."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from spillway.checkpoints import CheckpointName, claim, commit, latest, prune
from spillway.checkpoints.layout import manifest_names, part_paths
from spillway.errors import FencedError, StoreError
from spillway.testing.stores import Died, InterruptedStore, MemoryStore, die

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD = CheckpointName(token=1, step=10)
NEW = CheckpointName(token=1, step=20)
MANY = 1000


def parts(step: int) -> dict[str, bytes]:
    return {"model": bytes([step]) * 10, "optimizer": bytes([step]) * 20}


def prepared() -> MemoryStore:
    store = MemoryStore()
    claim(store, "task", 1)
    commit(store, "task", OLD, parts(10), now=NOW)
    return store


def save(store: InterruptedStore | MemoryStore) -> None:
    commit(store, "task", NEW, parts(20), now=NOW)
    prune(store, "task", keep=1, verified=NEW)


def count_operations() -> int:
    counting = InterruptedStore(prepared(), die, at=MANY)
    save(counting)
    return counting.operations


OPERATIONS = range(count_operations())


def found_step(store: MemoryStore) -> int:
    found = latest(store, "task")
    assert found is not None
    assert found.parts == parts(found.manifest.step)
    assert found.skipped == ()
    return found.manifest.step


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", OPERATIONS)
def test_a_writer_that_dies_leaves_the_old_or_the_new_checkpoint(at: int, after: bool) -> None:
    store = prepared()
    with pytest.raises(Died):
        save(InterruptedStore(store, die, at=at, after=after))
    step = found_step(store)
    assert step in (10, 20)

    found = claim(store, "task", 2)  # the next lease goes on from there
    assert found is not None
    assert found.manifest.step == step
    following = CheckpointName(token=2, step=30)
    commit(store, "task", following, parts(30), now=NOW)
    assert found_step(store) == 30
    prune(store, "task", keep=1, verified=following)
    assert manifest_names(store, "task") == [following]
    assert list(part_paths(store, "task")) == [following]  # and nothing half-written stays


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", OPERATIONS)
def test_a_store_that_fails_once_loses_nothing_that_was_saved(at: int, after: bool) -> None:
    def fail() -> None:
        raise StoreError("the disk was full for a moment")

    store = prepared()
    with pytest.raises(StoreError):
        save(InterruptedStore(store, fail, at=at, after=after))
    assert found_step(store) in (10, 20)
    save(store)  # the writer tries again
    assert found_step(store) == 20


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", OPERATIONS)
def test_a_lease_that_begins_during_a_commit_fences_it_and_keeps_what_it_began_from(
    at: int, after: bool
) -> None:
    store = prepared()
    begun: list[int] = []

    def begin() -> None:
        found = claim(store, "task", 2)
        assert found is not None
        begun.append(found.manifest.step)

    is_fenced = False
    try:
        commit(InterruptedStore(store, begin, at=at, after=after), "task", NEW, parts(20), now=NOW)
    except FencedError:
        is_fenced = True
    if not begun:
        begin()
    assert is_fenced or begun == [20]  # a writer is never told that what does not count was saved
    with pytest.raises(FencedError):
        commit(store, "task", CheckpointName(token=1, step=30), parts(30), now=NOW)
    assert [found_step(store)] == begun


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_during_the_beginning_of_a_lease_counts_whole_or_not_at_all(after: bool) -> None:
    for at in range(MANY):
        store = prepared()

        def save_quietly(store: MemoryStore = store) -> None:
            with suppress(FencedError):
                commit(store, "task", NEW, parts(20), now=NOW)

        interrupted = InterruptedStore(store, save_quietly, at=at, after=after)
        found = claim(interrupted, "task", 2)
        if interrupted.operations <= at:
            return
        assert found is not None
        assert found_step(store) == found.manifest.step


def test_an_older_lease_cannot_begin_after_a_newer_one() -> None:
    store = prepared()
    claim(store, "task", 3)
    with pytest.raises(FencedError) as fenced:
        claim(store, "task", 2)
    assert (fenced.value.token, fenced.value.newest) == (2, 3)


def test_what_a_replaced_lease_writes_past_every_check_is_never_seen() -> None:
    store = prepared()
    claim(store, "task", 2)
    other = prepared()
    save(other)
    for path in other.list("task/parts") + other.list("task/manifests"):
        store.put(path, other.objects[path])
    assert found_step(store) == 10
    claim(store, "task", 3)
    assert found_step(store) == 10


def test_a_fresh_lease_begins_from_nothing_and_stays_so() -> None:
    store = prepared()
    assert claim(store, "task", 2, fresh=True) is None
    assert latest(store, "task") is None
    commit(store, "task", CheckpointName(token=2, step=5), parts(5), now=NOW)
    found = claim(store, "task", 3)
    assert found is not None
    assert found.manifest.step == 5


def test_a_fresh_lease_that_is_started_again_goes_on_from_its_own() -> None:
    store = prepared()
    claim(store, "task", 2, fresh=True)
    commit(store, "task", CheckpointName(token=2, step=5), parts(5), now=NOW)
    found = claim(store, "task", 2, fresh=True)
    assert found is not None
    assert found.manifest.step == 5


def test_a_store_that_is_asked_twice_has_one_checkpoint() -> None:
    """Its first answer was lost, so the client asked again and found its own manifest."""

    class Repeating(MemoryStore):
        def create(self, path: str, data: bytes | memoryview) -> bool:
            super().create(path, data)
            return super().create(path, data)

    store = Repeating()
    claim(store, "task", 1)
    commit(store, "task", OLD, parts(10), now=NOW)
    assert found_step(store) == 10


def test_a_step_that_is_saved_is_not_saved_again() -> None:
    store = prepared()
    commit(store, "task", OLD, parts(99), now=NOW)
    assert found_step(store) == 10


@pytest.mark.parametrize("folder", [f"task/parts/{OLD}", "task/manifests"])
def test_a_step_that_was_saved_and_damaged_is_saved_again(folder: str) -> None:
    store = prepared()
    path = store.list(folder)[0]
    store.objects[path] = b"damaged"
    commit(store, "task", OLD, parts(10), now=NOW + timedelta(seconds=1))
    assert found_step(store) == 10
