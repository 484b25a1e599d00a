"""Heartbeats in the store: one listing for many leases, and only what changed is fetched."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import FolderStore
from spillway.errors import StoreError
from spillway.model import Heartbeat
from spillway.runtime.heartbeats import (
    HeartbeatReader,
    end_heartbeat,
    read_heartbeat,
    retire_heartbeat,
    write_heartbeat,
)
from spillway.testing.stores import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Lab
    from spillway.model import Submission

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class CountingStore(FolderStore):
    """Counts what a reader costs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[str] = []
        self.listings = 0

    def get(self, path: str) -> bytes | None:
        data = super().get(path)
        if data is not None:
            self.fetched.append(path)
        return data

    def versions(self, prefix: str) -> dict[str, str]:
        self.listings += 1
        return super().versions(prefix)


def leases(lab: Lab, count: int) -> list[Submission]:
    return [
        lab.submission(token=token, prefix=f"dag/run/task/{token}") for token in range(1, count + 1)
    ]


def beat(submission: Submission, step: int) -> Heartbeat:
    return Heartbeat(token=submission.token, written_at=NOW, step=step)


def steps(heartbeats: object) -> list[int | None]:
    assert isinstance(heartbeats, dict)
    return [heartbeats[key].step for key in sorted(heartbeats)]


def test_many_leases_are_read_with_one_listing_and_what_changed(lab: Lab, tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "many")
    submissions = leases(lab, 9)
    for one in submissions:
        write_heartbeat(store, one.prefix, beat(one, 1))
    reader = HeartbeatReader(store)
    assert steps(reader.read(submissions)) == [1] * 9
    assert (store.listings, len(store.fetched)) == (1, 9)

    store.fetched.clear()
    for one in submissions[:2]:
        write_heartbeat(store, one.prefix, beat(one, 2))
    assert steps(reader.read(submissions)) == [2, 2] + [1] * 7
    assert (store.listings, len(store.fetched)) == (2, 2)


def test_only_the_leases_asked_for_are_fetched(lab: Lab, tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "many")
    submissions = leases(lab, 5)
    for one in submissions:
        write_heartbeat(store, one.prefix, beat(one, 1))
    assert list(HeartbeatReader(store).read(submissions[:1])) == [submissions[0].key]
    assert len(store.fetched) == 1


def test_nobody_asks_the_store_about_no_leases(tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "none")
    assert HeartbeatReader(store).read([]) == {}
    assert store.listings == 0


def test_a_lease_that_has_said_nothing_is_left_out(lab: Lab) -> None:
    assert HeartbeatReader(lab.store).read(leases(lab, 2)) == {}


def test_the_last_words_of_a_lease_are_read_once_and_kept(lab: Lab, tmp_path: Path) -> None:
    store = CountingStore(tmp_path / "many")
    (one,) = leases(lab, 1)
    reader = HeartbeatReader(store)
    write_heartbeat(store, one.prefix, beat(one, 1))
    reader.read([one])
    end_heartbeat(store, one.prefix, beat(one, 7))
    assert steps(reader.read([one])) == [7]
    store.fetched.clear()
    assert steps(reader.read([one])) == [7]
    assert store.fetched == []
    assert store.list(".heartbeats") == []  # only what is at work is listed


def test_a_store_that_tells_no_versions_is_read_each_time(lab: Lab) -> None:
    store = MemoryStore()
    (one,) = leases(lab, 1)
    reader = HeartbeatReader(store)
    for step in (1, 2):
        write_heartbeat(store, one.prefix, beat(one, step))
        assert steps(reader.read([one])) == [step]


def test_one_unreadable_heartbeat_does_not_hide_the_others(lab: Lab) -> None:
    first, second = leases(lab, 2)
    write_heartbeat(lab.store, first.prefix, beat(first, 1))
    write_heartbeat(lab.store, second.prefix, beat(second, 2))
    path = next(iter(lab.store.list(".heartbeats")))
    lab.store.put(path, b"{}")
    reader = HeartbeatReader(lab.store)
    assert list(reader.read([first, second])) == [second.key]
    assert reader.unread == {first.key}
    assert list(reader.read([second])) == [second.key]
    assert not reader.unread
    with pytest.raises(StoreError, match="is not what a job wrote"):
        read_heartbeat(lab.store, first.prefix, first.token)


def test_a_store_that_cannot_be_listed_is_an_error(lab: Lab) -> None:
    class Broken(FolderStore):
        def versions(self, prefix: str) -> dict[str, str]:
            raise StoreError(f"no route to {prefix}")

    with pytest.raises(StoreError, match="no route"):
        HeartbeatReader(Broken(lab.folder)).read(leases(lab, 1))


def test_the_same_token_of_another_deployment_is_another_lease(lab: Lab) -> None:
    here, there = lab.submission(prefix="a/b/c/-1"), lab.submission(prefix="x/y/z/-1")
    write_heartbeat(lab.store, here.prefix, beat(here, 1))
    write_heartbeat(lab.store, there.prefix, beat(there, 2))
    found = read_heartbeat(lab.store, here.prefix, here.token)
    assert found is not None
    assert found.step == 1


def test_what_a_killed_job_said_last_is_kept_beside_its_task(lab: Lab) -> None:
    (one,) = leases(lab, 1)
    retire_heartbeat(lab.store, one.prefix, one.token)  # it said nothing at all
    write_heartbeat(lab.store, one.prefix, beat(one, 5))
    for _ in range(2):
        retire_heartbeat(lab.store, one.prefix, one.token)
        assert lab.store.list(".heartbeats") == []
        found = read_heartbeat(lab.store, one.prefix, one.token)
        assert found is not None
        assert found.step == 5


def test_a_beat_that_arrives_after_the_last_words_does_not_count(lab: Lab) -> None:
    (one,) = leases(lab, 1)
    knowing = HeartbeatReader(lab.store)
    last = replace(beat(one, 9), written_at=NOW + timedelta(seconds=1))
    end_heartbeat(lab.store, one.prefix, last)
    assert steps(knowing.read([one])) == [9]
    write_heartbeat(lab.store, one.prefix, beat(one, 8))
    for reader in (knowing, HeartbeatReader(lab.store)):
        assert steps(reader.read([one])) == [9]
        assert steps(reader.read([one])) == [9]
    retire_heartbeat(lab.store, one.prefix, one.token)
    assert read_heartbeat(lab.store, one.prefix, one.token) == last
