"""A search for parameters in a process of its own, so that Ray never meets the lease's signals.

A notice may reach every process of the lease's group. Ray's processes would end on it in an order of their own, taking the driver
with them before it can save anything, or keeping it for half a minute. So the driver and all that Ray starts are a session of
the system's apart (Ray gives its workers process groups of their own, and leaves them in the session); whoever listens here
is told what the trials report, and stopping is SIGKILL to that session.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil
from pydantic import JsonValue

from spillway.model import codec
from spillway.workloads import own_ray
from spillway.workloads.sweeping.choices import Schedule, SearchBy
from spillway.workloads.sweeping.rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_QUIET_SECONDS = 0.1
_KILLING_SECONDS = 0.02
_MAIN = "from spillway.workloads.ray_trials import main; main()"
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial without the metric is one that failed, not the end of all
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What the trials have in common.

    Attributes:
        trainable: `package.module:function`, called as `trial.run_function` says, or a class, which is Ray's `Trainable`.
        is_class: Whether it is a class.
        grace_steps: Steps before which no trial is stopped; of `pbt`, between changes.
        reduction_factor: One in so many trials goes on at each rung.
        accelerators_per_trial: May be a part of one.
    """

    trainable: str
    dataset: str
    metric: str
    mode: str
    max_steps: int
    grace_steps: int
    reduction_factor: int
    seed: int
    cpus_per_trial: float
    accelerators_per_trial: float = 0.0
    search: SearchBy = SearchBy.RANDOM
    scheduler: Schedule = Schedule.ASHA
    is_class: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the process is asked to do.

    Attributes:
        space: As it was written.
        num_samples: Trials in all, those that have ended too.
        rows: The trials that have ended, and those that go on.
        drawn: Parameters of those to come, where they do not depend on what is learned.
        checkpoints: Folder of each trial's checkpoint to go on from, by its number.
        arrivals: Where new checkpoints are put, each in a folder of its own.
        checkpoint_seconds: How often a trial is told to save.
        cpus: CPUs of this machine for trials, unless Ray is there already.
        accelerators: The same.
        folder: For Ray's own files; gone afterwards.
        parent: The asking process; when that is gone, nobody listens any more.
        shared: Store and folder that all machines of a Ray reach which is there already; None to start one for this.
    """

    search: Search
    space: dict[str, JsonValue]
    num_samples: int
    rows: tuple[Row, ...]
    drawn: dict[int, dict[str, JsonValue]]
    checkpoints: dict[int, str]
    arrivals: str
    checkpoint_seconds: float
    cpus: int
    accelerators: int = 0
    folder: str = ""
    parent: int = 0
    shared: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a trial said.

    Attributes:
        step: Steps done; 0 when it has not reported.
        value: Of the metric; None when it has not reported, or reported no number.
        seconds: Time it worked since the report before.
        params: When it starts, and when they have changed.
        checkpoint: Folder of a checkpoint that was made at this step; the reader's from now on.
        is_last: Whether the trial has ended.
        is_lost: Whether its process is gone, most likely with its machine.
        error: The traceback it failed with, or what is known of the loss.
        refused: Why nothing can be run at all; of no trial.
    """

    trial: int = -1
    step: int = 0
    value: float | None = None
    seconds: float = 0.0
    params: dict[str, JsonValue] | None = None
    checkpoint: str | None = None
    is_last: bool = False
    is_lost: bool = False
    error: str | None = None
    refused: str | None = None


@contextmanager
def running(request: Request) -> Iterator[Iterator[Sequence[Report]]]:
    """Run the trials; yield all reports that have come since the last, none when there was none for a moment.

    The reports end when the process does, done or not. Leaving the context ends all that Ray started.
    """
    with tempfile.TemporaryDirectory(
        prefix="ray-", dir=own_ray.short_folder(), ignore_cleanup_errors=True
    ) as folder:
        request = replace(request, folder=folder, parent=os.getpid())
        process = subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-c", _MAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**own_ray.environment(joins=request.shared is not None), **_SETTINGS},
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdout as output:
            try:
                with suppress(BrokenPipeError), process.stdin as request_pipe:
                    request_pipe.write(codec.encode_json(request))
                yield _reports(output.fileno())
            finally:
                _kill_session(
                    process.pid
                )  # before its leader is collected, so the number is still its own
                process.wait()


def _reports(descriptor: int) -> Iterator[Sequence[Report]]:
    rest = b""
    while True:
        if not select.select([descriptor], [], [], _QUIET_SECONDS)[0]:
            yield ()
            continue
        data = os.read(descriptor, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield [codec.decode_json(line, Report) for line in lines]


def _kill_session(leader: int) -> None:
    """End every process of the session, those that they start meanwhile too."""
    while alive := [process for process in psutil.process_iter() if _is_member(process, leader)]:
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(_KILLING_SECONDS)  # then a look for what was started meanwhile


def _is_member(process: psutil.Process, leader: int) -> bool:
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        return os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE
    return False
