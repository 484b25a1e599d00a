"""Entry points for tests: work that can be watched, preempted and counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

    from spillway.runtime import Session


def count(session: Session, *, steps: int, seconds_per_step: float = 0.2) -> dict[str, JsonValue]:
    """Count to `steps`, saving every step that a checkpoint is due; return the count and which leases counted."""
    checkpoint = session.restore()
    step = checkpoint.step if checkpoint else 0
    leases = [*(checkpoint.state["leases"] if checkpoint else []), session.token]
    while step < steps:
        time.sleep(seconds_per_step)  # the work
        step += 1
        session.progress(step, steps)
        print(f"counted {step}", flush=True)  # noqa: T201 # its output is what a test looks for
        if session.should_checkpoint():
            session.checkpoint(step, {"leases": leases})
    return {"counted": step, "leases": leases}


def fail(session: Session, *, message: str = "as asked") -> None:  # noqa: ARG001
    """Fail with `message`."""
    raise RuntimeError(message)
