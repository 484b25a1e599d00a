"""Processes and threads that begin leases of one task and save checkpoints of it, all at the same moment.

Run as a program, it is one of the processes: it says that it is ready, waits for a line, races, and prints what it did.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Final, cast

from spillway.checkpoints import CheckpointName, claim, commit, open_store
from spillway.errors import FencedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spillway.checkpoints.store import ObjectStore

PREFIX: Final = "raced"
OBJECTS: Final = 5

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_STEPS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """Something that one racer got done; times are of the machine's monotonic clock, in seconds.

    Attributes:
        step: Of the checkpoint it committed; None when it began its lease.
    """

    token: int
    step: int | None
    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one process got done.

    Attributes:
        created: Numbers of the objects it was the one to create.
    """

    deeds: tuple[Deed, ...]
    created: tuple[int, ...]


def race(url: str, tokens: Sequence[int]) -> Run:
    """Create the same objects as everybody else, then work for each of `tokens` in a thread of its own."""
    store = open_store(url)
    created = tuple(
        number
        for number in range(OBJECTS)
        if store.create(f"objects/{number}", str(tokens).encode())
    )
    with ThreadPoolExecutor(len(tokens)) as pool:
        done = pool.map(lambda token: _work(store, token), tokens)
        return Run(deeds=tuple(deed for deeds in done for deed in deeds), created=created)


def _work(store: ObjectStore, token: int) -> list[Deed]:
    """Begin a lease and commit until a newer one has begun."""
    deeds: list[Deed] = []
    for step in (None, *range(1, 1 + _STEPS)):
        began = time.monotonic()
        try:
            if step is None:
                claim(store, PREFIX, token)
            else:
                name = CheckpointName(token=token, step=step)
                commit(store, PREFIX, name, {"state": str(name).encode()}, now=_NOW)
        except FencedError:
            return deeds
        deeds.append(Deed(token=token, step=step, began=began, ended=time.monotonic()))
    return deeds


def race_in_processes(url: str, *, processes: int, threads: int) -> list[Run]:
    """Let processes race that work for `threads` leases each, and return what each got done."""
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603 - this program
                    [
                        sys.executable,
                        "-m",
                        __name__,
                        url,
                        *map(str, range(1 + number, 1 + processes * threads, processes)),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(processes)
        ]
        for racer in racers:
            _pipe(racer.stdout).readline()
        for racer in racers:
            _pipe(racer.stdin).write("go\n")
            _pipe(racer.stdin).flush()
        return [_decode(_pipe(racer.stdout).read()) for racer in racers]


def _decode(text: str) -> Run:
    fields = json.loads(text)
    return Run(
        deeds=tuple(Deed(**deed) for deed in fields["deeds"]), created=tuple(fields["created"])
    )


def _pipe(stream: IO[str] | None) -> IO[str]:
    return cast("IO[str]", stream)


def _main() -> None:
    url, *tokens = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    json.dump(asdict(race(url, [int(token) for token in tokens])), sys.stdout)


if __name__ == "__main__":
    _main()
