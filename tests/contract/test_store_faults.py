"""What a bucket's client makes of a wire that loses things, and of stores that do not keep their promise."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import CheckpointName, claim, commit, latest
from spillway.checkpoints.bucket import PIECE_BYTES, BucketStore
from spillway.errors import (
    CheckpointError,
    FencedError,
    StoreAccessError,
    StoreUnavailableError,
    UnfencedStoreError,
)
from spillway.testing.bucket_servers import BUCKET
from spillway.testing.ceph_server import VERSIONED_BUCKET
from spillway.testing.wire import Fault, Wire, wire_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.testing.bucket_servers import BucketServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HASTE = timedelta(seconds=0.5)
SERVERS = ("s3", "gcs", "azure")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> BucketServer:
    found: BucketServer = request.getfixturevalue(getattr(request, "param", "s3"))
    return found


@pytest.fixture
def direct(server: BucketServer, fresh_folder: Callable[[BucketServer], str]) -> BucketStore:
    """The store as it is in truth."""
    return BucketStore(fresh_folder(server))


@pytest.fixture
def wired(server: BucketServer, direct: BucketStore) -> Iterator[tuple[BucketStore, Wire]]:
    """The same store over a wire."""
    folder = direct.place.rpartition("/")[2]
    with wire_to(server.endpoint) as (endpoint, wire):
        yield BucketStore(server.url(folder, endpoint=endpoint)), wire


@pytest.fixture
def hasty(server: BucketServer, direct: BucketStore) -> Iterator[tuple[BucketStore, Wire]]:
    """The same, by a client that soon gives up."""
    folder = direct.place.rpartition("/")[2]
    with wire_to(server.endpoint) as (endpoint, wire):
        yield BucketStore(server.url(folder, endpoint=endpoint), patience=HASTE), wire


def save(store: BucketStore, step: int) -> None:
    name = CheckpointName(token=1, step=step)
    commit(store, "task", name, {"state": bytes([step]) * 1000}, now=NOW)


def found_step(store: BucketStore) -> int:
    found = latest(store, "task")
    assert found is not None
    assert found.parts["state"] == bytes([found.manifest.step]) * 1000
    return found.manifest.step


@pytest.mark.parametrize("server", ["s3", "gcs"], indirect=True)
def test_a_store_that_ignores_create_only_writes_is_refused(
    wired: tuple[BucketStore, Wire], direct: BucketStore
) -> None:
    store, wire = wired
    wire.fault = lambda _method, _path: Fault.LOSE_CONDITION
    for _ in range(2):  # and not only the first time
        with pytest.raises(UnfencedStoreError, match=r"same lease.*fencing=off"):
            claim(store, "task", 1)
    assert direct.list("task/claims") == []
    assert direct.list(".spillway") == []


def test_a_bucket_of_ceph_that_keeps_versions_is_refused(
    ceph: BucketServer, fresh_folder: Callable[[BucketServer], str]
) -> None:
    """Its gateway forgets the condition on such a bucket, and on no other."""
    fresh_folder(ceph)
    store = BucketStore(ceph.url("folder", bucket=VERSIONED_BUCKET))
    with pytest.raises(UnfencedStoreError, match=r"same lease.*buckets without versioning"):
        claim(store, "task", 1)
    assert store.list("task") == []


def test_a_store_that_ignores_create_only_writes_is_taken_when_told_so(
    s3: BucketServer, fresh_folder: Callable[[BucketServer], str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = fresh_folder(s3).partition("?")[0].rpartition("/")[2]
    with wire_to(s3.endpoint) as (endpoint, wire), caplog.at_level(logging.WARNING):
        wire.fault = lambda _method, _path: Fault.LOSE_CONDITION
        store = BucketStore(f"{s3.url(folder, endpoint=endpoint)}&fencing=off")
        claim(store, "task", 1)
        save(store, 1)
        assert not store.create("task/claims/000000000001.json", b"again")
        assert found_step(store) == 1
        claim(store, "task", 2)
        with pytest.raises(FencedError):  # which does not rest on the store
            save(store, 2)
        assert found_step(store) == 1
    assert caplog.text.count("ignores create-only writes") == 1


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_a_store_is_tried_out_once(wired: tuple[BucketStore, Wire]) -> None:
    store, wire = wired
    for number in range(3):
        store.create(f"a/{number}", b"")
    assert wire.requests.count("PUT") == 2 + 3


@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LOSE_REQUEST, Fault.BUSY])
def test_what_we_created_ourselves_is_known_as_ours(
    wired: tuple[BucketStore, Wire], direct: BucketStore, fault: Fault
) -> None:
    """When its answer is lost, the client asks again, and the server says that the object is there."""
    store, wire = wired
    store.create("a/first", b"")
    wire.break_once(fault, "PUT", "second")
    assert store.create("a/second", b"ours")
    assert direct.get("a/second") == b"ours"
    wire.break_once(fault, "PUT", "second")
    assert not store.create("a/second", b"ours")  # though it is the same to the last byte


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_a_store_that_does_not_answer_is_given_up_after_a_while(
    hasty: tuple[BucketStore, Wire],
) -> None:
    store, wire = hasty
    store.create("a/first", b"")
    wire.break_once(Fault.HANG, "PUT", "second")
    with pytest.raises(StoreUnavailableError, match="try again"):
        store.create("a/second", b"ours")
    assert store.create("a/second", b"ours")


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LOSE_REQUEST, Fault.BUSY])
@pytest.mark.parametrize("path", ["claims", "parts", "manifests"])
def test_a_commit_over_a_wire_that_breaks_once_is_whole(
    wired: tuple[BucketStore, Wire], direct: BucketStore, fault: Fault, path: str
) -> None:
    store, wire = wired
    claim(store, "task", 1)
    save(store, 1)
    wire.break_once(fault, "GET" if path == "claims" else "PUT", path)
    save(store, 2)
    assert found_step(direct) == 2


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_an_answer_that_is_cut_short_is_never_taken_for_the_object(
    hasty: tuple[BucketStore, Wire], direct: BucketStore
) -> None:
    store, wire = hasty
    direct.put("a", bytes(1000))
    wire.fault = lambda _method, _path: Fault.CUT_ANSWER
    with pytest.raises(StoreUnavailableError, match=r"cannot (read|list)"):
        store.get("a")
    wire.break_once(Fault.CUT_ANSWER, "GET")
    assert store.get("a") == bytes(1000)


def test_a_bit_that_is_flipped_on_the_way_once_costs_nothing(
    wired: tuple[BucketStore, Wire], direct: BucketStore
) -> None:
    store, wire = wired
    claim(direct, "task", 1)
    save(direct, 5)
    save(direct, 8)
    for path in ("claims/", "manifests/", "parts/"):
        wire.break_once(Fault.FLIP_ANSWER, "GET", f"{path}000000000001")
        assert found_step(store) == 8


def test_a_bit_that_is_flipped_each_time_sends_us_to_the_checkpoint_before(
    wired: tuple[BucketStore, Wire],
    direct: BucketStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, wire = wired
    claim(direct, "task", 1)
    save(direct, 5)
    save(direct, 8)
    newest = "parts/000000000001-000000000008"
    wire.fault = lambda method, path: (
        Fault.FLIP_ANSWER if method == "GET" and newest in path else Fault.NONE
    )
    with caplog.at_level(logging.WARNING):
        assert found_step(store) == 5
    assert "going back to the checkpoint of step 5: 3 steps are lost" in caplog.text


def test_a_store_that_cannot_be_asked_is_never_one_without_checkpoints(
    hasty: tuple[BucketStore, Wire], direct: BucketStore
) -> None:
    store, wire = hasty
    claim(direct, "task", 1)
    save(direct, 5)
    for fault, error in (
        (Fault.BUSY, StoreUnavailableError),
        (Fault.LOSE_REQUEST, StoreUnavailableError),
        (Fault.HANG, StoreUnavailableError),
        (Fault.DENY, StoreAccessError),
    ):
        wire.fault = lambda _method, _path, fault=fault: fault
        with pytest.raises(error):
            latest(store, "task")


def test_a_store_that_goes_away_in_the_middle_of_a_commit_keeps_the_checkpoint_before(
    hasty: tuple[BucketStore, Wire], direct: BucketStore
) -> None:
    store, wire = hasty
    claim(store, "task", 1)
    save(store, 1)
    first = len(wire.requests)
    save(store, 2)
    for after in range(len(wire.requests) - first):
        gone_from = len(wire.requests) + after
        wire.fault = lambda _method, _path, at=gone_from: (
            Fault.LOSE_REQUEST if len(wire.requests) > at else Fault.NONE
        )
        with pytest.raises(CheckpointError):
            save(store, 3)
        assert found_step(direct) in (2, 3)
        wire.fault = lambda _method, _path: Fault.NONE
    save(store, 3)
    assert found_step(direct) == 3


def test_a_large_object_that_changes_while_it_is_read_is_never_a_mixture(
    wired: tuple[BucketStore, Wire], direct: BucketStore
) -> None:
    store, wire = wired
    direct.put("a", b"1" * (3 * PIECE_BYTES))
    reads: list[str] = []

    def replace_after_first_read(method: str, path: str) -> Fault:
        reads.append(path)
        if len(reads) == 2:
            direct.put("a", b"2" * (3 * PIECE_BYTES))
        return Fault.NONE

    wire.fault = replace_after_first_read
    with pytest.raises(StoreUnavailableError, match="changed meanwhile"):
        store.get("a")
    assert BUCKET in reads[0]


@pytest.mark.parametrize("server", SERVERS, indirect=True)
def test_a_large_object_that_breaks_off_is_not_there(
    hasty: tuple[BucketStore, Wire], direct: BucketStore
) -> None:
    store, wire = hasty
    wire.fault = lambda method, path: (
        Fault.LOSE_REQUEST
        if method == "PUT" and ("partNumber=2" in path or "comp=blocklist" in path)
        else Fault.NONE
    )
    with pytest.raises(StoreUnavailableError):
        store.put("a/large", bytes(2 * PIECE_BYTES))
    assert direct.get("a/large") is None
    assert direct.list("a") == []
