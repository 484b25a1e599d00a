from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from patience import PATIENCE_SECONDS
from spillway.checkpoints import FolderStore
from spillway.model import Resources, Submission
from spillway.model.codec import encode_json
from spillway.runtime.exchange import Result, read_result
from spillway.runtime.gang.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENTRY_POINTS = Path(__file__).parents[3] / "entry_points"


def wait_for(look: Callable[[], Any], what: str, logs: Callable[[], str] = str) -> Any:
    """Return the first true answer of `look`; an error shows what `logs` returns then."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, f"it did not come true: {what}: {logs()}"
        time.sleep(0.02)
    return seen


class Machines:
    """Members of one gang as processes of this machine, on one store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FolderStore(folder / "store")
        self.meeting = folder / "meeting"
        self.meeting.mkdir()
        self.members: list[subprocess.Popen[bytes]] = []
        self._short: Path | None = None

    def submission(self, function: str, nodes: int, **facts: Any) -> Submission:
        values: dict[str, Any] = {
            "key": "dag/run/gang/-1/1",
            "pool": "here",
            "token": 1,
            "entry_point": f"gang_jobs:{function}",
            "arguments": {},
            "resources": Resources(),
            "store": (self.folder / "store").as_uri(),
            "prefix": "gang",
            "grace_period": timedelta(seconds=20),
            "checkpoint_interval": timedelta(hours=1),
            "nodes": nodes,
        }
        return Submission(**{**values, **facts})

    def start(
        self,
        submission: Submission,
        *,
        ranks: Sequence[int] | None = None,
        head: str = "127.0.0.1",
        port: int | None = None,
        inside: Callable[[int], Sequence[str]] = lambda _rank: (),
        **environment: str,
    ) -> None:
        """Start the members `ranks`, all unless given; `inside` is what to put before a member's command."""
        path = self.folder / f"submission-{submission.token}.json"
        path.write_bytes(encode_json(submission))
        port = port or free_port(following=1)
        self.members = []
        for rank in range(submission.nodes) if ranks is None else ranks:
            member = {
                "SPILLWAY_GANG_RANK": str(rank),
                "SPILLWAY_GANG_NODES": str(submission.nodes),
                "SPILLWAY_GANG_HEAD": head,
                "SPILLWAY_GANG_PORT": str(port),
                "SPILLWAY_GANG_START_SECONDS": "60",
                "PYTHONPATH": str(ENTRY_POINTS),
                "OMP_NUM_THREADS": "1",
                **environment,
            }
            with (self.folder / f"log-{rank}").open("ab") as log:
                self.members.append(
                    subprocess.Popen(
                        [*inside(rank), sys.executable, "-m", "spillway.runtime", str(path)],
                        env={**os.environ, **member},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )

    def codes(self, patience: float = PATIENCE_SECONDS) -> list[int]:
        """Return how the members exited, when all have."""
        deadline = time.monotonic() + patience
        try:
            return [m.wait(max(deadline - time.monotonic(), 0.1)) for m in self.members]
        except subprocess.TimeoutExpired:
            pytest.fail(f"some members are still there: {self.logs()}")

    def wait_until_at(self, step: int, ranks: Sequence[int]) -> None:
        """Wait until the members of `count_in_step` have come to a step."""
        for rank in ranks:
            wait_for(lambda rank=rank: self.at(rank) >= step, f"{rank} at {step}", self.logs)

    def wait_for(self, look: Callable[[], Any], what: str) -> None:
        """Wait until `look` answers what is true."""
        wait_for(look, what, self.logs)

    def at(self, rank: int) -> int:
        with suppress(FileNotFoundError):
            return int((self.meeting / f"at-{rank}").read_text() or 0)
        return 0

    def short_folder(self) -> Path:
        """Return a folder whose path is short enough for sockets."""
        if self._short is None:
            self._short = Path(tempfile.mkdtemp(prefix="gang-"))
        return self._short

    def result(self, token: int = 1, prefix: str = "gang") -> Result:
        found = read_result(self.store, prefix, token)
        assert found is not None
        return found

    def logs(self) -> str:
        return json.dumps(
            {file.name: file.read_text()[-3000:] for file in sorted(self.folder.glob("log-*"))},
            indent=1,
        ).replace("\\n", "\n")

    def end_all(self) -> None:
        for member in self.members:
            with suppress(ProcessLookupError):
                os.killpg(member.pid, signal.SIGKILL)
            member.wait()
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    machines = Machines(tmp_path)
    yield machines
    machines.end_all()
