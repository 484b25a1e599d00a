"""Two data-parallel processes that are stopped and started again do what two that were not stopped do."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("data_parallel_loop.py")
RANKS = range(2)
STEPS = 10
SEED = 27  # it stops within an accumulation, within an epoch, and at the ends of both


def run_ranks(folder: Path, stops: list[int]) -> None:
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": loopback}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", SCRIPT, str(folder), str(rank), *map(str, stops)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in RANKS
    ]
    try:
        for process in processes:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said
    finally:
        for process in processes:
            process.kill()


def test_two_ranks_stopped_anywhere_end_bit_for_bit_like_two_that_were_not(tmp_path: Path) -> None:
    stops = sorted(random.Random(SEED).sample(range(1, STEPS), 3))
    run_ranks(tmp_path, stops)
    for rank in RANKS:
        done = json.loads((tmp_path / f"{rank}.json").read_text())
        assert done["stopped"] == done["whole"], stops
        assert len(done["whole"]["losses"]) == STEPS
