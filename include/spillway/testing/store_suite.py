"""What every object store must do. Subclass `StoreContract` and give it a fixture `store` that is empty."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier, Event
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import CheckpointName, claim, commit, latest, prune
from spillway.errors import FencedError, StoreError

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class StoreContract:
    """Tests that every store passes."""

    def test_what_was_put_is_got(self, store: ObjectStore) -> None:
        store.put("a/b/c", b"one")
        store.put("a/b/c", b"two")
        store.put("a/empty", memoryview(b""))
        assert (store.get("a/b/c"), store.get("a/empty")) == (b"two", b"")

    def test_what_was_never_put_is_none(self, store: ObjectStore) -> None:
        store.put("a/b/c", b"one")
        assert (store.get("x"), store.get("a/b"), store.get("a/b/c/d")) == (None, None, None)

    def test_create_writes_only_the_first_time(self, store: ObjectStore) -> None:
        assert store.create("a/b", b"one")
        assert not store.create("a/b", b"two")
        assert store.get("a/b") == b"one"

    def test_of_many_creators_at_once_one_wins(self, store: ObjectStore) -> None:
        count = 8
        barrier = Barrier(count)

        def race(number: int) -> bool:
            barrier.wait(30)
            return store.create("race/object", bytes([number]) * 1000)

        for _ in range(10):
            with ThreadPoolExecutor(count) as pool:
                won = list(pool.map(race, range(count)))
            assert won.count(True) == 1
            assert store.get("race/object") == bytes([won.index(True)]) * 1000
            store.delete("race/object")

    def test_list_returns_all_objects_below_a_folder_in_order(self, store: ObjectStore) -> None:
        for path in ("a/2", "a/1/x", "a/10", "ab/1", "b"):
            store.put(path, b"")
        assert list(store.list("a")) == ["a/1/x", "a/10", "a/2"]
        assert list(store.list("nothing")) == []

    def test_deleting_is_no_error_when_there_is_nothing(self, store: ObjectStore) -> None:
        store.put("a/b", b"")
        store.delete("a/b")
        store.delete("a/b")
        store.delete("x/y/z")
        assert store.get("a/b") is None
        assert list(store.list("a")) == []

    @pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/../../b", "a/"])
    def test_a_path_that_leaves_the_store_is_refused(self, store: ObjectStore, path: str) -> None:
        with pytest.raises(StoreError):
            store.put(path, b"")

    def test_a_checkpoint_is_committed_found_and_pruned(self, store: ObjectStore) -> None:
        assert claim(store, "task", 1) is None
        for step in (1, 2, 3):
            name = CheckpointName(token=1, step=step)
            commit(store, "task", name, {"state": bytes([step]) * 100_000}, now=NOW)
        prune(store, "task", keep=2)
        found = claim(store, "task", 2)
        assert found is not None
        assert (found.name, found.parts["state"]) == (name, b"\x03" * 100_000)
        with pytest.raises(FencedError):
            commit(store, "task", CheckpointName(token=1, step=4), {}, now=NOW)
        again = latest(store, "task")
        assert again is not None
        assert again.name == name
        assert len(list(store.list("task/manifests"))) == 2

    def test_a_lease_that_begins_stops_the_one_before_at_work(self, store: ObjectStore) -> None:
        claim(store, "task", 1)
        first_is_saved = Event()

        def work_until_fenced() -> int:
            for step in range(1, 1000):
                name = CheckpointName(token=1, step=step)
                try:
                    commit(store, "task", name, {"state": str(step).encode()}, now=NOW)
                except FencedError as fenced:
                    return fenced.newest
                first_is_saved.set()
            return 0

        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(work_until_fenced)
            first_is_saved.wait(30)
            begun_from = claim(store, "task", 2)
            assert work.result(60) == 2
        found = latest(store, "task")
        assert begun_from is not None
        assert found is not None
        assert found.name == begun_from.name
        assert found.parts["state"] == str(found.manifest.step).encode()
