"""What is found when parts, manifests or claims are not what was written."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.checkpoints import CheckpointName, claim, commit, latest, prune
from spillway.checkpoints.layout import claim_path, manifest_names, manifest_path, part_paths
from spillway.checkpoints.prune import STRAY_AGE
from spillway.checkpoints.verify import Claim, read_claim, read_manifest
from spillway.errors import CorruptCheckpointError, SpecError
from spillway.model import Retention
from spillway.testing.stores import GarblingStore, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MANY = 1000


def saved(*steps: int) -> MemoryStore:
    store = MemoryStore()
    claim(store, "task", 1)
    for step in steps:
        state = {"a": bytes([step]) * 9, "b": bytes([step]) * 9}
        commit(store, "task", CheckpointName(token=1, step=step), state, now=NOW)
    return store


def paths_of(store: MemoryStore, step: int) -> list[str]:
    return [path for path in store.list("task") if f"-{step:012d}" in path]


def damage(data: bytes, kind: str, at: int) -> bytes:
    position = at % len(data)
    match kind:
        case "flipped":
            return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        case "cut":
            return data[:position]
        case "longer":
            return data + b"x"
        case _:
            return b"\x00garbage"


@given(
    st.sampled_from(["parts/a", "parts/b", "manifest"]),
    st.sampled_from(["flipped", "cut", "longer", "garbage", "missing"]),
    st.integers(min_value=0),
)
def test_whatever_is_damaged_the_checkpoint_before_is_found(
    target: str, kind: str, at: int
) -> None:
    store = saved(5, 8)
    (path,) = [path for path in paths_of(store, 8) if path.endswith(target[-1]) or target in path]
    if kind == "missing":
        del store.objects[path]
    else:
        store.objects[path] = damage(store.objects[path], kind, at)
    found = latest(store, "task")
    assert found is not None
    assert found.parts == dict.fromkeys(found.parts, bytes([found.manifest.step]) * 9)
    never_was = (target, kind) == ("manifest", "missing")
    assert [skipped.step for skipped in found.skipped] == ([] if never_was else [8])
    assert found.manifest.step == 5


def flips(data: bytes) -> Iterator[bytes]:
    """Return the data with each of its bits flipped."""
    for position, byte in enumerate(data):
        for bit in range(8):
            yield data[:position] + bytes([byte ^ 1 << bit]) + data[position + 1 :]


def test_no_bit_of_a_manifest_or_claim_can_change_and_be_believed() -> None:
    name = CheckpointName(token=2, step=9)
    store = saved(5, 8)
    claim(store, "task", 2)
    parts = {"a": b"9"}
    commit(store, "task", name, parts, now=NOW, metadata={"loss": 0.5}, entry_point="job:train")
    manifest_is, claim_is = manifest_path("task", name), claim_path("task", 2)
    whole = dict(store.objects)
    for flipped in flips(whole[manifest_is]):
        store.objects[manifest_is] = flipped
        with pytest.raises(CorruptCheckpointError, match="not what was written"):
            read_manifest(store, "task", name)
    for flipped in flips(whole[claim_is]):
        store.objects[claim_is] = flipped
        with pytest.raises(CorruptCheckpointError, match="not what was written"):
            read_claim(store, "task", 2)


def test_manifests_and_claims_of_before_they_had_a_checksum_can_be_read() -> None:
    store = saved(5, 8)
    claim(store, "task", 2)
    for path in store.list("task/claims") + store.list("task/manifests"):
        text, _, _ = store.objects[path].rpartition(b',"checksum":')
        store.objects[path] = text + b"}"
    assert read_claim(store, "task", 2) == Claim(token=2, base="000000000001-000000000008")
    found = latest(store, "task")
    assert found is not None
    assert (found.manifest.step, found.skipped) == (8, ())


def test_what_a_claim_says_is_not_believed_when_it_was_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = saved(1, 3)
    claim(store, "task", 2)
    path = claim_path("task", 2)
    store.objects[path] = store.objects[path].replace(b'03"', b'01"')
    with caplog.at_level(logging.WARNING):
        found = latest(store, "task")
    assert found is not None
    assert found.manifest.step == 3
    assert "cannot tell what lease 2 began from" in caplog.text


def test_going_back_says_how_many_steps_are_lost(caplog: pytest.LogCaptureFixture) -> None:
    store = saved(5, 8)
    store.objects[paths_of(store, 8)[-1]] = b"?"
    with caplog.at_level(logging.WARNING):
        latest(store, "task")
    assert "3 steps are lost" in caplog.text


def test_losing_everything_says_so(caplog: pytest.LogCaptureFixture) -> None:
    store = saved(8)
    store.objects[paths_of(store, 8)[-1]] = b"?"
    with caplog.at_level(logging.WARNING):
        assert latest(store, "task") is None
    assert "all 8 steps are lost" in caplog.text


def test_a_damaged_claim_costs_nothing_that_was_saved() -> None:
    store = saved(5, 8)
    claim(store, "task", 2)
    store.objects["task/claims/000000000002.json"] = b"garbage"
    found = latest(store, "task")
    assert found is not None
    assert found.manifest.step == 8
    found = claim(store, "task", 2)
    assert found is not None
    assert found.manifest.step == 8


def test_the_checkpoint_a_lease_began_from_is_gone_and_the_one_before_is_found() -> None:
    store = saved(5, 8)
    claim(store, "task", 2)
    for path in paths_of(store, 8):
        store.delete(path)
    found = latest(store, "task")
    assert found is not None
    assert found.manifest.step == 5
    assert [skipped.step for skipped in found.skipped] == [8]


def test_pruning_never_removes_the_newest_whole_one() -> None:
    store = saved(1, 2, 3, 4)
    for step in (3, 4):
        store.objects[paths_of(store, step)[-1]] = b"?"
    prune(store, "task", keep=1, now=NOW)
    assert [name.step for name in manifest_names(store, "task")] == [2, 3, 4]
    prune(store, "task", keep=1, now=NOW + STRAY_AGE)
    assert [name.step for name in manifest_names(store, "task")] == [2]
    assert [name.step for name in part_paths(store, "task")] == [2]
    found = latest(store, "task")
    assert found is not None
    assert found.manifest.step == 2


def test_a_damaged_one_that_turns_out_to_be_whole_stays() -> None:
    store = saved(1, 2, 3)
    path = manifest_path("task", CheckpointName(token=1, step=2))
    whole, store.objects[path] = store.objects[path], b"?"
    prune(store, "task", keep=2, now=NOW)
    store.objects[path] = whole
    prune(store, "task", keep=2, now=NOW + STRAY_AGE / 2)
    store.objects[path] = b"?"
    prune(store, "task", keep=2, now=NOW + STRAY_AGE)
    store.objects[path] = whole
    prune(store, "task", keep=2, now=NOW + STRAY_AGE)
    assert [name.step for name in manifest_names(store, "task")] == [2, 3]


@pytest.mark.parametrize("times", [1, 2, 3, MANY])
def test_answers_that_are_damaged_while_pruning_cost_no_checkpoint_that_is_to_stay(
    times: int,
) -> None:
    """The best is in the middle, and the lease before has more."""
    for at in range(MANY):
        store = saved(1, 2)
        claim(store, "task", 2)
        for step, loss in ((3, 2.0), (4, 1.0), (5, 3.0)):
            name = CheckpointName(token=2, step=step)
            commit(store, "task", name, {"a": b"5"}, now=NOW, metrics={"loss": loss})
        garbling = GarblingStore(store, at=at, times=times)
        rule = Retention(last=1, metric="loss")
        prune(garbling, "task", keep=rule, verified=name, now=NOW)
        assert {4, 5} <= {name.step for name in manifest_names(store, "task")}
        prune(store, "task", keep=rule, now=NOW)
        assert [name.step for name in manifest_names(store, "task")] == [4, 5]
        found = latest(store, "task")
        assert found is not None
        assert (found.manifest.step, found.skipped) == (5, ())
        if at >= garbling.answers:
            return


def test_an_answer_that_was_damaged_on_its_way_is_asked_for_again() -> None:
    """Whichever of claim, manifests and parts it is."""
    for at in range(MANY):
        store = saved(1, 3)
        claim(store, "task", 2)
        garbling = GarblingStore(store, at=at)
        found = latest(garbling, "task")
        assert found is not None
        assert (found.manifest.step, found.skipped) == (3, ())
        if at >= garbling.answers:
            return


def test_pruning_keeps_as_many_as_it_is_told() -> None:
    store = saved(1, 2, 3, 4)
    removed = prune(store, "task", keep=2, verified=CheckpointName(token=1, step=4)).removed
    assert [name.step for name in removed] == [1, 2]
    assert [name.step for name in manifest_names(store, "task")] == [3, 4]
    assert not paths_of(store, 2)


def test_pruning_keeps_what_the_newest_lease_began_from_until_it_has_its_own() -> None:
    store = saved(1, 2)
    claim(store, "task", 2)
    prune(store, "task", keep=1)
    assert [name.step for name in manifest_names(store, "task")] == [2]


def test_pruning_everything_is_refused() -> None:
    with pytest.raises(SpecError, match="always stays"):
        prune(saved(1), "task", keep=0)


def test_objects_of_others_are_ignored() -> None:
    store = saved(5)
    for path in ("claims/readme.txt", "manifests/x.json", "parts/y/z"):
        store.put(f"task/{path}", b"?")
    found = latest(store, "task")
    assert found is not None
    prune(store, "task", keep=1)
    assert store.get("task/parts/y/z") == b"?"


def test_tasks_do_not_see_each_others_checkpoints() -> None:
    store = saved(5)
    assert latest(store, "tas") is None
    assert latest(store, "task/x") is None


@pytest.mark.parametrize(("token", "step"), [(-1, 0), (0, -1), (10**12, 0)])
def test_numbers_that_would_not_sort_are_refused(token: int, step: int) -> None:
    with pytest.raises(ValueError, match="twelve digits"):
        CheckpointName(token=token, step=step)
