"""The table of trials, as it is saved and taken over by the next attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spillway.runtime import Session
from spillway.workloads.search import Report, Search
from spillway.workloads.sweeping.choices import Schedule
from spillway.workloads.sweeping.table import Table

if TYPE_CHECKING:
    from pathlib import Path

SEARCH = Search(
    trainable="trial_samples:climbing",
    dataset="/data",
    metric="height",
    mode="max",
    max_steps=20,
    grace_steps=4,
    reduction_factor=2,
    seed=0,
    cpus_per_trial=1,
    scheduler=Schedule.PBT,
)


def opened(folder: Path) -> Table:
    session = Session.local(folder / "session")
    table = Table(session, SEARCH, space={"x": 1}, num_samples=2, share=1)
    table.restore()
    return table


def saves(table: Table, trial: int, step: int) -> Report:
    """Return the report of a checkpoint that a trial has just made."""
    arrived = table.arrivals / f"{trial}-{step}"
    arrived.mkdir()
    (arrived / "state").write_text(f"trial {trial}, step {step}")
    return Report(trial=trial, step=step, checkpoint=str(arrived))


@pytest.mark.parametrize("last", [6, 7, 8, 9])
def test_a_trial_that_went_back_for_anothers_checkpoint_is_saved_as_it_is_now(
    tmp_path: Path, last: int
) -> None:
    table = opened(tmp_path)
    table.take([Report(trial=trial, params={"x": trial}) for trial in (0, 1)])
    table.take([saves(table, 0, 8), saves(table, 1, 5)])
    table.save()
    table.take([Report(trial=0, params={"x": 1.2})])
    for step in range(6, last + 1):  # it comes by the number of steps that was saved before, too
        table.take([saves(table, 0, step)])
        table.save()
    again = opened(tmp_path)
    row = again.rows[0]
    assert (row.params, row.checkpoint_step) == ({"x": 1.2}, last)
    (state,) = again._folder(0).iterdir()
    assert state.read_text() == f"trial 0, step {last}"
