"""Runs the nightly pipeline end to end and shows what it does."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live

from spillway.demo.report import news, report
from spillway.demo.site import Site, own_folder
from spillway.demo.summary import summarise
from spillway.demo.tables import progress_table
from spillway.demo.wide import wide_site
from spillway.errors import SpillwayError
from spillway.testing.airflow_stack import AirflowStack, AirflowStackError
from spillway.testing.servers import NotStartedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from spillway.dispatch import Dispatcher

PROJECT: Final = Path(__file__).resolve().parents[3]
DAG_ID: Final = "nightly"

LONGEST_SECONDS: Final = 3600.0
LOOK_SECONDS: Final = 1.0
"""How often what is shown is drawn anew; a log, to which little is added, is looked after half as often."""

NEWS_SECONDS: Final = 10.0
"""How often a log that cannot be redrawn is told how far the run is while nothing else happens."""

FINAL_RUN_STATES: Final = frozenset({"success", "failed"})

_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as to_stop:
            try:
                return _run(console, options, to_stop)
            except KeyboardInterrupt:
                console.print("\nInterrupted; stopping what runs.")
                return 130
            finally:
                _ignore_interrupts()
    except (AirflowStackError, NotStartedError, SpillwayError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the Airflow UI up until Ctrl-C")
    parser.add_argument("--size", default="small", help="workload size of the run")
    parser.add_argument("--home", type=Path, help="folder to run in; one below build/ unless given")
    pools = parser.add_mutually_exclusive_group()
    pools.add_argument("--wide", action="store_true", help="over a Ray and a Slurm cluster too")
    pools.add_argument("--pools", type=Path, default=Path(__file__).parent / "pools.yaml")
    return parser


def _run(console: Console, options: argparse.Namespace, to_stop: ExitStack) -> int:
    """Run the demo; what has to be stopped at its end goes to `to_stop`."""
    began = time.monotonic()
    site = _prepare(console, options, to_stop)
    stack = AirflowStack(
        home=site.home,
        project=PROJECT,
        pools_file=site.pools_file,
        settings=site.airflow_settings,
    )
    to_stop.callback(site.stop_jobs)
    to_stop.callback(stack.stop)
    with console.status("Starting ...") as status:
        stack.start(on_wait=lambda what: status.update(f"Waiting for {what} ..."))
        status.update(f"Waiting for the DAG {DAG_ID} ...")
        run_id = stack.trigger(DAG_ID, {"size": options.size})
    console.print(f"Airflow is up at {stack.url} after {time.monotonic() - began:.0f} s.")
    console.print(f"Triggered {DAG_ID}, run {run_id}.")
    dispatcher = site.dispatcher()
    state = _watch(console, stack, dispatcher, run_id)
    summaries = summarise(dispatcher, DAG_ID, run_id, now=datetime.now(UTC))
    report(console, stack, site, summaries, DAG_ID, run_id)
    console.print(f"\nIt took {time.monotonic() - began:.0f} s in all.")
    if options.keep:
        with suppress(KeyboardInterrupt):
            console.print(
                f"The UI stays up at {stack.url}/dags/{DAG_ID}, with the page under Browse, Spillway; Ctrl-C ends it."
            )
            signal.pause()
    return 0 if state == "success" else 1


def _prepare(console: Console, options: argparse.Namespace, to_stop: ExitStack) -> Site:
    """Return what the demo runs on, everything beside Airflow started."""
    name = "demo-wide" if options.wide else "demo"
    home = (options.home or PROJECT / "build" / name).resolve()
    pools_file = home / "pools.yaml" if options.wide else options.pools
    to_stop.enter_context(own_folder(home, pools_file))
    if not options.wide:
        return Site(home=home, pools_file=pools_file)
    with console.status("Starting Ray and Slurm ..."):
        return to_stop.enter_context(
            wide_site(
                home,
                pools_file,
                size=options.size,
                tell=lambda line: console.print(line, soft_wrap=True),
            )
        )


def _watch(console: Console, stack: AirflowStack, dispatcher: Dispatcher, run_id: str) -> str:
    """Show the run's progress until it is over; return its state.

    Raises:
        AirflowStackError: A process of Airflow ended, or the run did not within `LONGEST_SECONDS`.
    """
    shown, shown_at, state = "", 0.0, ""

    def show() -> bool:
        nonlocal shown, shown_at, state
        state = stack.run_state(DAG_ID, run_id)
        summaries = summarise(dispatcher, DAG_ID, run_id, now=datetime.now(UTC))
        if console.is_terminal:
            live.update(progress_table(summaries))
        else:
            what, how_far = news(summaries, stack, DAG_ID, run_id)
            if what != shown or time.monotonic() - shown_at > NEWS_SECONDS:
                console.print(what + how_far, soft_wrap=True, markup=False)
                shown, shown_at = what, time.monotonic()
        return state in FINAL_RUN_STATES

    with Live(console=console, refresh_per_second=2, transient=console.is_terminal) as live:
        every = LOOK_SECONDS if console.is_terminal else 2 * LOOK_SECONDS
        stack.wait_until(show, "the run to end", LONGEST_SECONDS, every_seconds=every)
    return state


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # what signal handlers are given
    _ignore_interrupts()
    raise KeyboardInterrupt


def _ignore_interrupts() -> None:
    """Let nothing disturb the end: a second Ctrl-C must not leave half of it running."""
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
