"""The kernel's timer kills a process that nothing puts it off for, and no other."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("timer.put_off(); ctypes.PyDLL(None).sleep(600)", -signal.SIGKILL),
        ("timer.put_off(); signal.alarm(0); ctypes.PyDLL(None).sleep(600)", -signal.SIGKILL),
        ("timer.put_off(); timer.stop(); ctypes.PyDLL(None).usleep(2_500_000)", 0),
        ("ctypes.PyDLL(None).usleep(2_500_000)", 0),
        ("[(timer.put_off(), ctypes.PyDLL(None).usleep(10_000)) for _ in range(250)]", 0),
    ],
    ids=["hangs", "sets timers of its own", "is stopped", "was never put off", "goes on"],
)
def test_only_what_does_not_put_it_off_is_killed(code: str, end: int) -> None:
    begin = "import ctypes, os, signal; from spillway.runtime.gang.kernel_timer import KernelTimer"
    program = f"{begin}; timer = KernelTimer(2.0); {code}"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == end
