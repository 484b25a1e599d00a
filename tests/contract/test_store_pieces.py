"""How much of a large object is under way at once, seen on the wire, and what memory saving takes, as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys
from threading import Event
from typing import TYPE_CHECKING

import pytest

from patience import PATIENCE_SECONDS
from spillway.checkpoints.bucket import PIECE_BYTES, BucketStore
from spillway.testing.wire import Fault, Wire, wire_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spillway.testing.bucket_servers import BucketServer

PIECES = 5
STATE_MIB = 160


def hold_until_two(wire: Wire, method: str, *, but_for: int = 0) -> None:
    """Let requests of `method`, but for the first ones, wait until two of them are under way."""
    two, seen = Event(), []

    def hold(asked: str, _path: str) -> Fault:
        if asked == method:
            seen.append(asked)
            if len(seen) > but_for:
                if wire.under_way >= 2:
                    two.set()
                assert two.wait(PATIENCE_SECONDS)
        return Fault.NONE

    wire.fault, wire.most_at_once = hold, 0


@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
def test_two_pieces_of_a_large_object_are_under_way_at_once_and_never_more(
    kind: str, request: pytest.FixtureRequest, fresh_folder: Callable[[BucketServer], str]
) -> None:
    server: BucketServer = request.getfixturevalue(kind)
    folder = fresh_folder(server).partition("?")[0].rpartition("/")[2]
    data = b"".join(bytes([number]) * PIECE_BYTES for number in range(PIECES))
    with wire_to(server.endpoint) as (endpoint, wire):
        store = BucketStore(server.url(folder, endpoint=endpoint))
        hold_until_two(wire, "PUT")
        store.put("a", data)
        assert wire.most_at_once == 2
        hold_until_two(wire, "GET", but_for=1)  # the first tells how many there are
        assert store.get("a") == data
        assert wire.most_at_once == 2


SAVE = """
import re, sys
from datetime import timedelta
from pathlib import Path
import numpy as np
from spillway.checkpoints import open_store
from spillway.model import Resources, Submission
from spillway.runtime import Session

def kib(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

url, mib = sys.argv[1], int(sys.argv[2])
submission = Submission(
    key="a", pool="here", token=1, entry_point="a:b", arguments={}, resources=Resources(), store=url, prefix="task",
    grace_period=timedelta(0),
)
session = Session(submission, open_store(url), scratch=Path("."))
session.restore()
state = {"weights": np.ones(mib << 20, dtype=np.uint8)}
session.checkpoint(1, {"weights": state["weights"][:1]})  # what is loaded once is not counted
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = kib("VmRSS")
for step in (2, 3, 4):
    session.checkpoint(step, state)
    session.flush()
print((kib("VmHWM") - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak again")
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_saving_takes_one_copy_of_the_state_and_two_pieces_at_the_most(
    kind: str,
    request: pytest.FixtureRequest,
    fresh_folder: Callable[[BucketServer], str],
    tmp_path: Path,
) -> None:
    is_folder = kind == "folder"
    url = tmp_path.as_uri() if is_folder else fresh_folder(request.getfixturevalue(kind))
    command = [sys.executable, "-c", SAVE, url, str(STATE_MIB)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    extra_mib = int(done.stdout)
    assert STATE_MIB * 0.9 < extra_mib <= STATE_MIB + 2 * PIECE_BYTES / 2**20
