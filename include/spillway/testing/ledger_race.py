"""Many threads and processes that want the same few slots at the same moment.

Run as a program, it is one of the processes: it says that it is ready, waits for a line, races, and prints its results.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Barrier
from typing import IO, TYPE_CHECKING, Final, cast

from spillway.errors import LedgerError, PoolFullError, SpillwayError
from spillway.ledger import Ledger
from spillway.testing.ledger_samples import NOON, sample_request, sample_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POOL: Final = "raced"
SLOTS: Final = 10


def together(racers: int, run: Callable[[int], str]) -> Counter[str]:
    """Call `run` with 0, 1, ... in as many threads at one moment; return how often each answer came."""
    start = Barrier(racers)

    def racer(number: int) -> str:
        start.wait()
        return run(number)

    with ThreadPoolExecutor(racers) as pool:
        return Counter(pool.map(racer, range(racers)))


def race(url: str, *, name: str, threads: int) -> Counter[str]:
    """Ask for 1 to 3 slots from each of `threads` threads, each for a task of its own; return how they fared."""
    ledger = Ledger.open(url)

    def ask(number: int) -> str:
        task = sample_task(f"{name}-{number}")
        request = sample_request(task, pool=POOL, nodes=1 + number % 3)
        return outcome(lambda: ledger.grant(request, slots=SLOTS, now=NOON))

    try:
        return together(threads, ask)
    finally:
        ledger.close()


def outcome(grant: Callable[[], object]) -> str:
    """Return in a word how asking for a lease went; anything unexpected is told in full."""
    try:
        grant()
    except PoolFullError:
        return "full"
    except SpillwayError as error:
        return (
            "held" if type(error) is LedgerError and "already holds" in str(error) else repr(error)
        )
    return "granted"


@contextmanager
def racing_processes(
    url: str, *, processes: int, threads: int
) -> Iterator[Callable[[], Counter[str]]]:
    """Start processes that wait at the line; yield what to call, once they were let go, for their results together."""
    command = [sys.executable, "-m", __name__, url, str(threads)]
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(  # noqa: S603 - this program
                    [*command, f"process-{number}"],
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

        def results() -> Counter[str]:
            return sum(
                (Counter(json.loads(_pipe(racer.stdout).read())) for racer in racers), Counter()
            )

        yield results


def _pipe(stream: IO[str] | None) -> IO[str]:
    return cast("IO[str]", stream)


def _main() -> None:
    url, threads, name = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    json.dump(race(url, name=name, threads=int(threads)), sys.stdout)


if __name__ == "__main__":
    _main()
