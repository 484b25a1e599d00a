from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.checkpoints import latest
from spillway.checkpoints.layout import manifest_names
from spillway.model import Heartbeat, Retention
from spillway.runtime import Session
from spillway.runtime.stored import note_stored, stretches

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
GIB = 2**30


def test_a_lease_that_has_stored_nothing_tells_nothing() -> None:
    assert list(stretches(Heartbeat(token=1, written_at=NOW))) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40)), min_size=1, max_size=6))
def test_stretches_sum_to_what_was_stored_over_time(changes: list[tuple[int, int]]) -> None:
    said, at = Heartbeat(token=1, written_at=NOW), NOW
    seen: list[tuple[datetime, int]] = []
    for hours, gib in changes:
        at += hours * HOUR
        said = note_stored(said, gib * GIB, now=at)
        seen.append((at, gib))
    end = at + 5 * HOUR
    expected = sum(
        gib * ((until - since) / HOUR) for (since, gib), (until, _) in pairwise([*seen, (end, 0)])
    )
    told = [*stretches(said), (end, 0.0)]
    found = sum(gib * ((until - since) / HOUR) for (since, gib), (until, _) in pairwise(told))
    assert found == pytest.approx(expected)
    assert told[0][0] == seen[0][0]


def test_a_session_keeps_what_its_task_says(lab: Any) -> None:
    session = lab.session(retention=Retention(last=1, metric="loss"))
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5)):
        session.progress(step, loss=loss)
        session.checkpoint(step, {"step": step})
        session.flush()
    assert [name.step for name in manifest_names(lab.store, "task")] == [2, 4]
    found = latest(lab.store, "task")
    assert found is not None
    assert found.manifest.metrics == {"loss": 2.5}


def test_a_session_tells_what_its_checkpoints_take(tmp_path: object) -> None:
    session = Session.local(str(tmp_path))
    for step in (1, 2, 3):
        session.checkpoint(step, {"a": bytes(1000)})
        session.flush()
    said = session.heartbeat
    assert said.stored_gib is not None
    assert 2 * 1000 < said.stored_gib * GIB < 2 * 2000  # the newest two
    assert said.stored_from is not None
    assert said.stored_since is not None
    assert said.stored_from <= said.stored_since
