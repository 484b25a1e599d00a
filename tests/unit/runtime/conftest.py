from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spillway.checkpoints import FolderStore
from spillway.model import Resources, Submission
from spillway.model.codec import encode_json
from spillway.runtime import Session
from spillway.runtime.signals import Notice
from spillway.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.checkpoints.store import ObjectStore

ENTRY_POINTS = Path(__file__).parents[2] / "entry_points"


class Lab:
    """A store, a clock that stands still, and sessions of leases one after another."""

    LONG = timedelta(minutes=1)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: ObjectStore = FolderStore(folder / "store")
        self.clock = ManualClock()
        self.notice = Notice(clock=self.clock)

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
        self.notice = Notice(clock=self.clock)
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


class Wrappers:
    """Starts wrappers as processes of their own, and leaves none behind."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, submission: Submission | None, *arguments: str, **variables: str
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ENTRY_POINTS), **variables}
        if submission is not None:
            environment["SPILLWAY_SUBMISSION"] = encode_json(submission).decode()
        process = subprocess.Popen(
            [sys.executable, "-m", "spillway.runtime", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def stop(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def wrappers() -> Iterator[Wrappers]:
    wrappers = Wrappers()
    yield wrappers
    wrappers.stop()
