"""Which checkpoints stay: by the rule, and whatever is being read while others are removed."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.checkpoints import CheckpointName, claim, commit, latest, prune
from spillway.checkpoints.layout import manifest_names, part_paths
from spillway.checkpoints.prune import STRAY_AGE
from spillway.checkpoints.readers import beginning, reading
from spillway.checkpoints.retention import judge, metric_of
from spillway.checkpoints.verify import read_manifest, read_part
from spillway.errors import FencedError, SpecError
from spillway.model import Manifest, Retention
from spillway.testing.stores import Died, InterruptedStore, MemoryStore, die
from spillway.testing.strategies import retentions

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.checkpoints import ObjectStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
MANY = 1000


def manifest(step: int, loss: float = 0.0, token: int = 1) -> Manifest:
    return Manifest(token=token, step=step, created_at=NOW, parts=(), metrics={"loss": loss})


def kept_steps(manifests: list[Manifest], rule: Retention) -> list[int]:
    return sorted(verdict.name.step for verdict in judge(manifests, rule) if verdict.is_kept)


runs = st.dictionaries(st.integers(0, 200), st.floats(), min_size=1, max_size=12).map(
    lambda losses: [manifest(step, loss) for step, loss in losses.items()]
)


def test_each_line_of_a_rule_keeps_its_own() -> None:
    run = [manifest(step, abs(step - 43)) for step in range(0, 100, 9)]
    assert kept_steps(run, Retention(last=2)) == [90, 99]
    assert kept_steps(run, Retention(last=1, every_steps=30)) == [0, 36, 63, 90, 99]
    assert kept_steps(run, Retention(last=1, metric="loss", best=2)) == [36, 45, 99]
    assert kept_steps(run, Retention(last=1, metric="loss", highest=True)) == [99]
    assert kept_steps(run, Retention(last=1, metric="accuracy")) == [99]


@given(runs, retentions())
def test_the_newest_always_stays_and_each_verdict_has_a_reason(
    run: list[Manifest], rule: Retention
) -> None:
    verdicts = judge(run, rule)
    assert verdicts[0].name.step == max(each.step for each in run)
    assert verdicts[0].is_kept
    assert all(verdict.reason for verdict in verdicts)
    assert len(verdicts) == len(run)


@given(runs, retentions(), st.randoms())
def test_the_order_they_are_listed_in_is_irrelevant(
    run: list[Manifest], rule: Retention, random: object
) -> None:
    shuffled = list(run)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert judge(shuffled, rule) == judge(run, rule)


@given(runs, retentions())
def test_what_is_removed_one_by_one_is_what_is_removed_at_once(
    run: list[Manifest], rule: Retention
) -> None:
    """Pruning after each save ends with every best and every milestone that the whole run has."""
    kept: list[Manifest] = []
    for each in sorted(run, key=lambda one: one.step):
        kept.append(each)
        stay = set(kept_steps(kept, rule))
        kept = [one for one in kept if one.step in stay]
    assert [each.step for each in kept] == kept_steps(run, rule)


@given(runs, st.booleans(), st.integers(1, 3))
def test_the_best_by_the_metric_stay(run: list[Manifest], highest: bool, best: int) -> None:
    stay = kept_steps(run, Retention(last=1, metric="loss", highest=highest, best=best))
    values = [each.metrics["loss"] for each in run if not math.isnan(each.metrics["loss"])]
    wanted = sorted(values, reverse=highest)[:best]
    found = [each.metrics["loss"] for each in run if each.step in stay]
    assert all(value in found for value in wanted)


def test_a_metric_given_with_the_checkpoint_counts_where_none_was_reported() -> None:
    one = Manifest(
        token=1, step=1, created_at=NOW, parts=(), metadata={"loss": 2, "ok": True, "name": "x"}
    )
    assert [metric_of(one, name) for name in ("loss", "ok", "name", "none")] == [
        2,
        None,
        None,
        None,
    ]


@pytest.mark.parametrize("mistake", [{"last": 0}, {"every_steps": 0}, {"best": 0}])
def test_a_rule_that_makes_no_sense_is_refused(mistake: dict[str, int]) -> None:
    with pytest.raises(SpecError, match=next(iter(mistake))):
        Retention(**mistake)


def save(store: ObjectStore, step: int, token: int = 1, loss: float = 0.0) -> None:
    name = CheckpointName(token=token, step=step)
    parts = {"a": f"{name} a".encode(), "b": f"{name} b".encode()}
    commit(store, "task", name, parts, now=NOW, metrics={"loss": loss})


def saved(*steps: int) -> MemoryStore:
    store = MemoryStore()
    claim(store, "task", 1)
    for step in steps:
        save(store, step)
    return store


def steps_of(store: MemoryStore) -> list[int]:
    return [name.step for name in manifest_names(store, "task")]


def test_pruning_follows_the_rule_and_says_what_is_left() -> None:
    store = saved()
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 2.5)):
        save(store, step, loss=loss)
    done = prune(store, "task", keep=Retention(last=1, metric="loss"), now=NOW)
    assert steps_of(store) == [20, 40]
    assert [name.step for name in done.removed] == [10, 30]
    assert done.stored_bytes == sum(
        len(data) for path, data in store.objects.items() if "/parts/" in path
    )
    reasons = {verdict.name.step: verdict.reason for verdict in done.verdicts}
    assert "best" in reasons[20]
    assert "newest" in reasons[40]


def test_what_the_next_lease_begins_from_stays_though_its_step_is_a_lower_one() -> None:
    """A lease that did not restore anything began at step 0 again."""
    store = saved(7, 8)
    claim(store, "task", 2)
    save(store, 1, token=2)
    done = prune(store, "task", keep=1, verified=CheckpointName(token=2, step=1), now=NOW)
    assert newest_step(store) == 1
    assert {verdict.name.step for verdict in done.verdicts if verdict.is_kept} == {1, 8}


def test_what_is_being_read_stays_until_the_reader_is_done() -> None:
    store = saved(1, 2, 3)
    oldest = CheckpointName(token=1, step=1)
    with reading(store, "task", by="export", until=NOW + HOUR, checkpoint=oldest):
        done = prune(store, "task", keep=1, now=NOW)
        assert steps_of(store) == [1, 3]
        assert "export" in {v.name.step: v.reason for v in done.verdicts}[1]
    prune(store, "task", keep=1, now=NOW)
    assert steps_of(store) == [3]


def test_a_reader_that_died_holds_nothing_for_longer_than_it_said() -> None:
    store = saved(1, 2, 3)
    with pytest.raises(Died), reading(dying_at_the_end(store), "task", by="x", until=NOW + HOUR):
        die()
    prune(store, "task", keep=1, now=NOW)
    assert steps_of(store) == [1, 2, 3]
    prune(store, "task", keep=1, now=NOW + HOUR)
    assert steps_of(store) == [3]


def test_a_lease_that_died_before_it_began_holds_nothing_once_another_has() -> None:
    store = saved(1, 2, 3)
    with pytest.raises(Died), beginning(dying_at_the_end(store), "task", 2):
        die()
    prune(store, "task", keep=1)
    assert steps_of(store) == [1, 2, 3]
    claim(store, "task", 3)
    prune(store, "task", keep=1)
    assert steps_of(store) == [3]


def test_a_mark_that_cannot_be_read_holds_everything() -> None:
    store = saved(1, 2, 3)
    store.put("task/readers/x.json", b"?")
    prune(store, "task", keep=1, now=NOW)
    assert steps_of(store) == [1, 2, 3]


@pytest.mark.parametrize("after", [False, True])
def test_whenever_a_lease_begins_during_pruning_it_begins_from_what_stays(after: bool) -> None:
    """The replaced lease commits and prunes on while the new one looks for where to begin."""

    def act(store: ObjectStore) -> None:
        prune(store, "task", keep=1, verified=CheckpointName(token=1, step=3), now=NOW)

    def meanwhile(store: MemoryStore) -> None:
        found = claim(store, "task", 2)
        assert found is not None
        assert found.manifest.step == 3
        assert found.skipped == ()

    for store in interleaved(act, meanwhile, after=after):
        assert newest_step(store) == 3


@pytest.mark.parametrize("after", [False, True])
def test_whatever_is_saved_and_pruned_while_a_lease_begins_it_begins_from_what_stays(
    after: bool,
) -> None:
    def act(store: ObjectStore) -> None:
        found = claim(store, "task", 2)
        assert found is not None
        assert found.skipped == ()

    def meanwhile(store: MemoryStore) -> None:
        for step in (4, 5, 6):
            try:
                save(store, step)
            except FencedError:
                return
            name = CheckpointName(token=1, step=step)
            prune(store, "task", keep=1, verified=name, now=NOW)

    for store in interleaved(act, meanwhile, after=after):
        claims = sorted(path for path in store.objects if "/claims/" in path)
        assert len(claims) == 2
        assert newest_step(store) >= 3


@pytest.mark.parametrize("after", [False, True])
def test_what_an_export_found_can_be_read_to_its_end_whenever_pruning_happens(after: bool) -> None:
    oldest = CheckpointName(token=1, step=1)
    exported: list[bool] = []

    def act(store: ObjectStore) -> None:
        with reading(store, "task", by="export", until=NOW + HOUR):
            if oldest not in manifest_names(store, "task"):
                exported.append(False)
                return
            found = read_manifest(store, "task", oldest)
            for part in found.parts:
                read_part(store, "task", part)
            exported.append(True)

    def meanwhile(store: MemoryStore) -> None:
        prune(store, "task", keep=1, now=NOW)

    for _ in interleaved(act, meanwhile, after=after):
        pass
    assert exported.count(True) > 3


def interleaved(
    act: Callable[[ObjectStore], None], meanwhile: Callable[[MemoryStore], None], *, after: bool
) -> list[MemoryStore]:
    """Do `meanwhile` at each operation of `act`, and return what each left."""
    stores: list[MemoryStore] = []
    for at in range(MANY):
        store = saved(1, 2, 3)
        interrupted = InterruptedStore(store, lambda s=store: meanwhile(s), at=at, after=after)
        act(interrupted)
        if interrupted.operations <= at:
            return stores
        stores.append(store)
    raise AssertionError("it never ends")


def newest_step(store: MemoryStore) -> int:
    found = latest(store, "task")
    assert found is not None
    assert found.skipped == ()
    return found.manifest.step


def test_parts_of_a_dead_commit_are_collected_after_a_safe_age() -> None:
    store = saved(1)
    store.put("task/parts/000000000001-000000000002/a", b"half")
    for age in (timedelta(0), STRAY_AGE / 2):
        prune(store, "task", keep=1, now=NOW + age)
        assert len(part_paths(store, "task")) == 2
    prune(store, "task", keep=1, now=NOW + STRAY_AGE)
    assert [name.step for name in part_paths(store, "task")] == [1]


def test_what_a_writer_left_that_was_followed_at_the_same_step_is_collected_too() -> None:
    store = saved(1)
    store.put(f"task/parts/{CheckpointName(token=1, step=1)}/dead/a", b"half")
    whole = len(store.objects)
    prune(store, "task", keep=1, now=NOW)
    prune(store, "task", keep=1, now=NOW + STRAY_AGE)
    assert len(store.objects) == whole  # the stray is gone, and notes have come
    assert not [path for path in store.objects if "/dead/" in path]
    assert newest_step(store) == 1


def test_a_writer_at_work_is_not_mistaken_for_one_that_died_at_the_same_step() -> None:
    store = saved(1)
    store.put("task/parts/000000000001-000000000002/dead/a", b"half")
    prune(store, "task", keep=1, now=NOW)
    store.put("task/parts/000000000001-000000000002/alive/a", b"half")
    prune(store, "task", keep=1, now=NOW + STRAY_AGE)
    (left,) = part_paths(store, "task")[CheckpointName(token=1, step=2)]
    assert "alive" in left


def test_parts_that_became_a_checkpoint_are_not_counted_as_dead_later() -> None:
    store = saved(1)
    store.put("task/parts/000000000001-000000000002/a", b"half")
    prune(store, "task", keep=9, now=NOW)
    save(store, 2)
    prune(store, "task", keep=9, now=NOW + STRAY_AGE)
    assert newest_step(store) == 2
    assert steps_of(store) == [1, 2]


def test_notes_of_dead_commits_that_cannot_be_read_are_begun_anew() -> None:
    store = saved(1)
    store.put("task/parts/000000000001-000000000002/a", b"half")
    store.put("task/strays.json", b"?")
    prune(store, "task", keep=1, now=NOW)
    prune(store, "task", keep=1, now=NOW + STRAY_AGE)
    assert [name.step for name in part_paths(store, "task")] == [1]


def dying_at_the_end(store: MemoryStore) -> ObjectStore:
    """Return the store as one sees it who writes a mark and dies before taking it away."""
    return InterruptedStore(store, die, at=1)
