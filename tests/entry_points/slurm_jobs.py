"""Entry points that the tests of the Slurm backend run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spillway.runtime import Session


def say_where(session: Session, folder: str) -> None:
    """Write down which member of the gang this is, and stay until all of them have."""
    said = (os.environ["SLURM_PROCID"], os.environ["SLURM_NNODES"], os.environ["SLURMD_NODENAME"])
    (Path(folder) / said[0]).write_text(" ".join(said))
    while len(list(Path(folder).iterdir())) < int(said[1]):
        time.sleep(0.05)


def save_for_ever(session: Session) -> None:
    """Save a checkpoint every moment, whoever else does, until that is refused."""
    restored = session.restore()
    step = restored.step if restored else 0
    while True:
        step += 1
        session.checkpoint(step, {"step": step})
        time.sleep(0.1)


def use_memory(session: Session, mib: int) -> int:
    """Have that much memory for a moment."""
    return len(bytearray(mib << 20))
