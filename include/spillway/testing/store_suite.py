"""What every object store must do. Subclass `StoreContract` and give it a fixture `store_url` of an empty place."""

from __future__ import annotations

from array import array
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier, Event
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import CheckpointName, claim, commit, latest, open_store, prune
from spillway.checkpoints.store import SupportsVersions
from spillway.errors import FencedError, StoreError
from spillway.testing.store_race import OBJECTS, PREFIX, race_in_processes
from spillway.testing.stores import Died, InterruptedStore, die

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


ODD_NAMES = (
    "with space",
    "per%20cent",
    "ümlaut 日本",
    "#?&+=",
    "*'();:@,[]~|<>\"^`{}",
    "trailing. ",
    ".hidden",
    "x" * 200,
)
"""Names that a URL, an XML answer or a listing may get wrong."""

MANY = 1050
"""More objects than a listing of S3 or Google Cloud Storage has in one page."""


class StoreContract:
    """Tests that every store passes."""

    @pytest.fixture
    def store(self, store_url: str) -> ObjectStore:
        return open_store(store_url)

    def test_what_was_put_is_got(self, store: ObjectStore) -> None:
        store.put("a/b/c", b"one")
        store.put("a/b/c", b"two")
        store.put("a/empty", memoryview(b""))
        assert (store.get("a/b/c"), store.get("a/empty")) == (b"two", b"")

    def test_large_objects_come_back_whole(self, store: ObjectStore) -> None:
        data = bytes(range(251)) * (33 * 2**20 // 251) + b"end"
        store.put("a/large", memoryview(data))  # in pieces, the last one short
        assert store.get("a/large") == data

    def test_any_buffer_is_written_as_bytes(self, store: ObjectStore) -> None:
        numbers = array("i", range(1000))
        store.put("a/put", memoryview(numbers))
        store.create("a/created", bytearray(numbers.tobytes()))
        assert store.get("a/put") == store.get("a/created") == numbers.tobytes()

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names_are_kept_as_they_are(self, store: ObjectStore, name: str) -> None:
        path = f"a/{name}/{name}"
        assert store.create(path, name.encode())
        assert not store.create(path, b"again")
        assert store.get(path) == name.encode()
        assert list(store.list(f"a/{name}")) == [path]
        store.delete(path)
        assert store.get(path) is None

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

    def test_more_objects_than_one_page_are_all_listed(self, store: ObjectStore) -> None:
        paths = [f"many/{number:05d}" for number in range(MANY)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: store.put(path, b""), paths))
        assert list(store.list("many")) == paths

    def test_a_listing_tells_which_objects_have_changed(self, store: ObjectStore) -> None:
        if not isinstance(store, SupportsVersions):
            pytest.skip("this store's listing does not tell")
        for path in (".beats/a", ".beats/b", "other/c"):
            store.put(path, b"one")
        before = store.versions(".beats")
        store.put(".beats/a", b"two")
        after = store.versions(".beats")
        assert sorted(before) == sorted(after) == [".beats/a", ".beats/b"]
        assert before[".beats/a"] != after[".beats/a"]
        assert before[".beats/b"] == after[".beats/b"]
        assert store.versions("nothing") == {}

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

    def test_a_writer_that_dies_anywhere_leaves_the_one_before_or_its_own(
        self, store: ObjectStore
    ) -> None:
        for at in range(1000):
            task = f"task-{at}"
            claim(store, task, 1)
            commit(store, task, CheckpointName(token=1, step=1), {"state": b"1"}, now=NOW)
            dying = InterruptedStore(store, die, at=at)
            try:
                commit(dying, task, CheckpointName(token=1, step=2), {"state": b"2"}, now=NOW)
            except Died:
                found = latest(store, task)
                assert found is not None
                assert (found.parts["state"], found.skipped) == (str(found.name.step).encode(), ())
            else:
                return

    def test_processes_that_race_leave_one_winner_and_fence_the_rest(
        self, store: ObjectStore, store_url: str
    ) -> None:
        runs = race_in_processes(store_url, processes=3, threads=2)
        created = [number for run in runs for number in run.created]
        assert sorted(created) == list(range(OBJECTS))

        deeds = [deed for run in runs for deed in run.deeds]
        begun = {deed.token: deed.ended for deed in deeds if deed.step is None}
        assert max(begun) == 6  # nobody fences the newest
        for deed in deeds:
            newer = [ended for token, ended in begun.items() if token > deed.token]
            assert all(deed.began < ended for ended in newer), "committed after it was replaced"

        found = latest(store, PREFIX)
        assert found is not None
        assert found.name == CheckpointName(token=6, step=4)
        assert found.parts["state"] == str(found.name).encode()
