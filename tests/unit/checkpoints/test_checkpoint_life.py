"""Leases claim, commit, crash, are replaced and write on; disks lose bits. A simple model says what must be found."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spillway.checkpoints import CheckpointName, claim, commit, latest, prune
from spillway.checkpoints.layout import manifest_path
from spillway.errors import FencedError
from spillway.testing.stores import Died, InterruptedStore, MemoryStore, die

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PREFIX = "task"


class CheckpointLife(RuleBasedStateMachine):
    """The model is one line of checkpoints, oldest first; a lease that begins cuts it off after the newest whole one.

    Beside the line is what replaced leases wrote past every check since one began from nothing. It stands in where nothing on
    the line is whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.token = 0
        self.first = 0
        self.line: list[CheckpointName] = []
        self.beside: set[CheckpointName] = set()
        self.whole: set[CheckpointName] = set()
        self.last_step: dict[int, int] = {}

    @property
    def newest_whole(self) -> CheckpointName | None:
        on_line = (name for name in reversed(self.line) if name in self.whole)
        return next(on_line, max(self.beside & self.whole, default=None))

    @initialize()
    def begin_first(self) -> None:
        self.begin(gap=0, fresh=False)

    @rule(gap=st.integers(min_value=0, max_value=3), fresh=st.sampled_from([False] * 5 + [True]))
    def begin(self, gap: int, fresh: bool) -> None:
        expected = None if fresh else self.newest_whole
        self.token += 1 + gap
        found = claim(self.store, PREFIX, self.token, fresh=fresh)
        assert (found.name if found else None) == expected
        if expected is None:
            self.first = self.token
            self.line, self.beside = [], set()
        elif expected in self.line:
            self.line = self.line[: self.line.index(expected) + 1]
        else:  # and what its lease wrote before it
            self.line = sorted(
                name for name in self.beside if name.token == expected.token and name <= expected
            )
            self.beside -= set(self.line)
        self.last_step[self.token] = expected.step if expected else 0

    def next_name(self, token: int, ahead: int) -> CheckpointName:
        self.last_step[token] += ahead
        return CheckpointName(token=token, step=self.last_step[token])

    def parts(self, name: CheckpointName) -> dict[str, bytes]:
        return {"a": str(name).encode(), "b": f"{name} again".encode()}

    @rule(ahead=st.integers(min_value=1, max_value=5))
    def save(self, ahead: int) -> None:
        name = self.next_name(self.token, ahead)
        commit(self.store, PREFIX, name, self.parts(name), now=NOW)
        self.line.append(name)
        self.whole.add(name)

    @rule(at=st.integers(min_value=0, max_value=12), after=st.booleans())
    def die_while_saving(self, at: int, after: bool) -> None:
        name = self.next_name(self.token, 1)
        with suppress(Died):
            dying = InterruptedStore(self.store, die, at=at, after=after)
            commit(dying, PREFIX, name, self.parts(name), now=NOW)
        if manifest_path(PREFIX, name) in self.store.objects:
            self.line.append(name)
            self.whole.add(name)

    @precondition(lambda self: len(self.last_step) > 1)
    @rule(data=st.data())
    def save_after_being_replaced(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(set(self.last_step) - {self.token})))
        name = self.next_name(token, 1)
        with pytest.raises(FencedError):
            commit(self.store, PREFIX, name, self.parts(name), now=NOW)

    @precondition(lambda self: len(self.last_step) > 1)
    @rule(data=st.data())
    def write_past_every_check_after_being_replaced(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(set(self.last_step) - {self.token})))
        name = self.next_name(token, 1)
        alone = MemoryStore()
        claim(alone, PREFIX, token)
        commit(alone, PREFIX, name, self.parts(name), now=NOW)
        self.store.objects.update(
            {path: data for path, data in alone.objects.items() if "/claims/" not in path}
        )
        if token >= self.first:
            self.beside.add(name)
            self.whole.add(name)

    @precondition(lambda self: self.whole)
    @rule(data=st.data(), kind=st.sampled_from(["a", "b", "manifest"]), cut=st.booleans())
    def damage(self, data: st.DataObject, kind: str, cut: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.whole)))
        parts = self.store.list(f"{PREFIX}/parts/{name}")
        of_kind = [path for path in parts if path.endswith(f"/{kind}")]
        (path,) = of_kind or [manifest_path(PREFIX, name)]
        if cut:
            del self.store.objects[path]
        else:
            self.store.objects[path] = b"?"
        self.whole.discard(name)

    @rule(keep=st.integers(min_value=1, max_value=3))
    def tidy(self, keep: int) -> None:
        prune(self.store, PREFIX, keep=keep)
        kept = [name for name in self.line if name in self.whole][-keep:]
        stays = self.store.objects.keys() & {manifest_path(PREFIX, name) for name in kept}
        assert kept[-1:] == [name for name in kept[-1:] if manifest_path(PREFIX, name) in stays]
        self.whole = {
            name for name in self.whole if manifest_path(PREFIX, name) in self.store.objects
        }

    @invariant()
    def the_newest_whole_one_that_counts_is_found(self) -> None:
        found = latest(self.store, PREFIX)
        assert (found.name if found else None) == self.newest_whole
        if found is not None:
            assert found.parts == self.parts(found.name)


TestCheckpointLife = CheckpointLife.TestCase
TestCheckpointLife.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
