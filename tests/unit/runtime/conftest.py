from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spillway.checkpoints import FolderStore
from spillway.model import Resources, Submission
from spillway.runtime import Session
from spillway.runtime.signals import Notice
from spillway.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from spillway.checkpoints.store import ObjectStore

ENTRY_POINTS = Path(__file__).parents[2] / "entry_points"


class Lab:
    """A store, a clock that stands still, and sessions of leases one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: ObjectStore = FolderStore(folder / "store")
        self.clock = ManualClock()
        self.notice = Notice()

    def submission(
        self, entry_point: str = "sample_jobs:succeed", *, token: int = 1, **facts: Any
    ) -> Submission:
        values: dict[str, Any] = {
            "key": f"dag/run/task/-1/{token}",
            "pool": "here",
            "token": token,
            "entry_point": entry_point,
            "arguments": {},
            "resources": Resources(),
            "store": (self.folder / "store").as_uri(),
            "prefix": "task",
            "grace_period": timedelta(seconds=1),
            "checkpoint_interval": timedelta(minutes=1),
        }
        return Submission(**{**values, **facts})

    def session(self, token: int = 1, **facts: Any) -> Session:
        self.notice = Notice()
        return Session(
            self.submission(token=token, **facts),
            self.store,
            scratch=self.folder,
            clock=self.clock,
            notice=self.notice,
        )


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.syspath_prepend(str(ENTRY_POINTS))
    return Lab(tmp_path)
