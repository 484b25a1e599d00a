from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from patience import PATIENCE_SECONDS
from spillway.runtime.tied import main

STARTS_ONE = """
import subprocess, sys
from spillway.runtime.tied import tied
child = subprocess.Popen(tied(["/bin/sleep", "1000"]), start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_a_tied_command_ends_with_whoever_started_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        command = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        command.wait(PATIENCE_SECONDS)


def test_a_command_whose_parent_has_ended_already_is_not_begun() -> None:
    main(0, ["/bin/false"])
