"""Entry points that the tests of runtime and local backend run."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spillway.checkpoints import open_store
from spillway.runtime.heartbeats import read_heartbeat

if TYPE_CHECKING:
    from spillway.runtime import Session

TEXT = "first line\nsecond line: \u00e4\u20ac\U0001f600\n"
NOT_A_FUNCTION = 3


def succeed(session: Session) -> dict[str, Any]:
    return {"key": session.key, "token": session.token}


def echo(session: Session, **arguments: Any) -> dict[str, Any]:
    return arguments


def takes_two(session: Session, first: int, second: int = 2) -> int:
    return first + second


def exit_with_3(session: Session) -> None:
    os._exit(3)


def raise_an_error(session: Session) -> None:
    raise ValueError("the data is not there")


def raise_much(session: Session, message: str, times: int) -> None:
    raise ValueError(message * times)


def wait_until_seen(session: Session) -> int | None:
    """Wait for a heartbeat, having said nothing to the session; return its step."""
    store = open_store(session.submission.store)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        seen = read_heartbeat(store, session.submission.prefix, session.token)
        if seen is not None:
            return seen.step
        time.sleep(0.02)
    raise TimeoutError


def move_scratch(session: Session, to: str) -> None:
    session.scratch.rename(to)
    session.scratch.symlink_to(to)


def run_on(session: Session) -> None:
    while not session.preempted:
        time.sleep(0.05)
    sys.exit(1)


def ignore_everything(session: Session) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(0.05)


def print_variable(session: Session, name: str) -> None:
    sys.stdout.write(f"{os.environ[name]}\n")


def leave_a_file(session: Session, name: str) -> None:
    """Leave a file where SageMaker keeps them, tell which were there before, and wait."""
    folder = Path(os.environ["SPILLWAY_SAGEMAKER_FOLDER"]) / "checkpoints"
    sys.stdout.write(f"found {sorted(one.name for one in folder.iterdir())}\n")
    sys.stdout.flush()
    (folder / name).write_text(name)
    run_on(session)


def print_text(session: Session) -> None:
    sys.stdout.buffer.write(TEXT.encode())
    sys.stdout.buffer.flush()


def show_environment(session: Session) -> dict[str, str]:
    return dict(os.environ)


def preempt_itself(session: Session) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    while not session.should_checkpoint():
        time.sleep(0.01)
    session.checkpoint(1, {"at": 1})


def run_on_with_children(session: Session, pids: str) -> None:
    """Start a child in this group, and one in a session of its own, neither of which obeys SIGTERM."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    children = [
        subprocess.Popen([sys.executable, "-c", code], start_new_session=new)
        for new in (False, True)
    ]
    Path(pids).write_text(" ".join(str(child.pid) for child in children))
    run_on(session)


def leave_a_child_behind(session: Session, pids: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(pids).write_text(str(child.pid))
    os._exit(0)


def meet(session: Session) -> int:
    """Succeed as one of several members; the runtime has brought them together."""
    if session.gang.nodes < 2:
        raise ValueError("there is nobody to meet")
    return session.gang.nodes


def count_starts(session: Session, path: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    run_on(session)


def train(session: Session, steps: int, gate: str | None = None) -> dict[str, Any]:
    """Train: the sum of all steps so far, and every step that this attempt did.

    Until the file `gate` exists it never gets past the first half, as a long training would not.
    """
    restored = session.restore()
    total, first = (restored.state["total"], restored.step + 1) if restored else (0, 1)
    for step in range(first, steps + 1):
        if gate and step == steps // 2 + 1:
            print("at the gate", flush=True)  # noqa: T201
        while gate and step > steps // 2 and not Path(gate).exists():
            if session.should_checkpoint():
                session.checkpoint(step - 1, {"total": total})
            time.sleep(0.01)
        total += step
        session.progress(step, steps, sum=total)
        if session.should_checkpoint(step):
            session.checkpoint(step, {"total": total})
    return {"total": total, "first": first}


def never_look(session: Session) -> None:
    """Save once, and then work on without a look at the session."""
    session.progress(1, 10)
    session.checkpoint(1, {"at": 1})
    print("working without looking")  # noqa: T201
    while True:
        time.sleep(0.05)


def save_beside_and_never_look(session: Session) -> None:
    """Save what is too large to be waited for, and then work on without a call to the session."""
    import numpy as np

    session.progress(1, 10)
    session.checkpoint(1, {"weights": np.zeros(200_000)})
    while True:
        time.sleep(0.05)


def train_with_workers(session: Session, at: str) -> None:
    """Take batches from a data loader's workers, a few of them after the notice too, and save."""
    from torch.utils.data import DataLoader

    last = 0
    loader = DataLoader(range(10_000), batch_size=1, num_workers=2)
    for step, batch in enumerate(itertools.cycle(loader), 1):
        Path(at).write_text(str(step))
        last = last or (step + 10 if session.preempted else 0)
        if step == last:
            session.checkpoint(step, {"batch": batch})


def end_children(session: Session, ways: list[str]) -> dict[str, Any]:
    """Start children and terminate them at once; return what they ended by, and whether the job took that for a notice."""
    codes = []
    for way in ways:
        child = multiprocessing.get_context(way).Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join(60)
        codes.append(child.exitcode)
    return {"codes": codes, "preempted": session.preempted}


def stay_in_c(session: Session) -> None:
    """Save once, and then stay for minutes in C code that no signal interrupts."""
    session.checkpoint(1, {"at": 1})
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 1_000_000_000)
