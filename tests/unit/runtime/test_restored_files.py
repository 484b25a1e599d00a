"""The files of a checkpoint that was restored, which are read only when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints.layout import manifest_names
from spillway.runtime.gang.membership import LOOPBACK, Member

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Lab
    from spillway.runtime import Session


@pytest.fixture
def folder(lab: Lab) -> Path:
    """A folder that lease 1 has saved."""
    folder = lab.folder / "tokenizer"
    folder.mkdir()
    (folder / "vocabulary").write_text("a b c")
    lab.session().checkpoint(1, files=folder)
    return folder


def save(session: Session, folder: Path, *steps: int) -> None:
    for step in steps:
        (folder / "vocabulary").write_text(f"of step {step}")
        session.checkpoint(step, files=folder)


def steps_kept(lab: Lab) -> list[int]:
    return [name.step for name in manifest_names(lab.store, "task")]


def test_they_can_be_had_whatever_has_been_saved_since(lab: Lab, folder: Path) -> None:
    session = lab.session(token=2)
    restored = session.restore()
    assert restored is not None
    save(session, folder, 2, 3, 4)
    assert steps_kept(lab) == [1, 3, 4]
    assert (restored.files(lab.folder / "new") / "vocabulary").read_text() == "a b c"
    save(session, folder, 5)
    assert steps_kept(lab) == [4, 5]
    assert list(lab.store.list("task/readers")) == []


def test_what_nobody_asks_for_is_kept_no_longer_than_the_lease(lab: Lab, folder: Path) -> None:
    lab.session(token=2).restore()
    session = lab.session(token=3)
    assert session.restore() is not None
    save(session, folder, 2, 3, 4)
    assert steps_kept(lab) == [1, 3, 4]
    session = lab.session(token=5)
    session.restore()
    save(session, folder, 6, 7)
    assert steps_kept(lab) == [4, 6, 7]


def test_one_member_of_a_gang_does_not_end_it_for_the_others(lab: Lab, folder: Path) -> None:
    session = lab.session(token=2)
    session.gang = Member(rank=0, nodes=2, head_address=LOOPBACK)
    restored = session.restore()
    assert restored is not None
    restored.files(lab.folder / "mine")
    save(session, folder, 2, 3, 4)
    assert (restored.files(lab.folder / "theirs") / "vocabulary").read_text() == "a b c"


def test_a_checkpoint_without_files_is_not_held(lab: Lab) -> None:
    lab.session().checkpoint(1, {"weights": [1.5]})
    lab.session(token=2).restore()
    assert list(lab.store.list("task/readers")) == []
