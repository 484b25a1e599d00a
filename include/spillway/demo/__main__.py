"""Runs the nightly pipeline end to end and shows what it does."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.live import Live

from spillway.backends import registry
from spillway.catalog.pools_file import load_pools
from spillway.demo.summary import summarise
from spillway.demo.tables import cost_table, progress_table, reasons
from spillway.dispatch import Dispatcher
from spillway.errors import SpecError, SpillwayError
from spillway.ledger import Ledger
from spillway.model import LeaseState
from spillway.reconcile import reconcile
from spillway.testing.airflow_stack import AirflowStack, AirflowStackError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spillway.demo.summary import TaskSummary

PROJECT: Final = Path(__file__).resolve().parents[3]
DAG_ID: Final = "nightly"
MARKER: Final = ".spillway-demo"
"""Marks a folder that a demo made, and that the next one may empty."""

LONGEST_SECONDS: Final = 3600.0
FINAL_RUN_STATES: Final = frozenset({"success", "failed"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(width=None if sys.stdout.isatty() else 120)
    home = options.home.resolve()
    try:
        _make_room(home, options.pools)
        stack = AirflowStack(home=home, project=PROJECT, pools_file=options.pools)
    except SpillwayError as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    try:
        return _run(console, stack, options)
    except KeyboardInterrupt:
        console.print("\nInterrupted; stopping what runs.")
        return 130
    except (AirflowStackError, SpillwayError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    finally:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a second Ctrl-C must not leave half of it running
        try:
            stack.stop()
        finally:
            _stop_jobs(home, options.pools)


def _make_room(home: Path, pools_file: Path) -> None:
    """Empty the folder of an earlier demo, whose jobs may still run if it was killed.

    Raises:
        SpecError: The folder is not a demo's.
    """
    if home.exists() and any(home.iterdir()) and not (home / MARKER).exists():
        raise SpecError(
            f"{home} holds something other than an earlier demo; give --home an empty folder"
        )
    _stop_jobs(home, pools_file)
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / MARKER).touch()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the Airflow UI up until Ctrl-C")
    parser.add_argument("--size", default="small", help="workload size of the run")
    parser.add_argument("--home", type=Path, default=PROJECT / "build" / "demo")
    parser.add_argument("--pools", type=Path, default=Path(__file__).parent / "pools.yaml")
    return parser


def _run(console: Console, stack: AirflowStack, options: argparse.Namespace) -> int:
    began = time.monotonic()
    with console.status("Starting ...") as status:
        stack.start(on_wait=lambda what: status.update(f"Waiting for {what} ..."))
        status.update(f"Waiting for the DAG {DAG_ID} ...")
        run_id = stack.trigger(DAG_ID, {"size": options.size})
    console.print(f"Airflow is up at {stack.url} after {time.monotonic() - began:.0f} s.")
    console.print(f"Triggered {DAG_ID}, run {run_id}.")
    dispatcher = _open(stack.home, options.pools)
    state = _watch(console, stack, dispatcher, run_id)
    summaries = summarise(dispatcher, DAG_ID, run_id, now=datetime.now(UTC))
    _report(console, stack, summaries, run_id, state, began)
    if options.keep:
        console.print(f"The UI stays up at {stack.url}/dags/{DAG_ID}; Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):
            signal.pause()
    return 0 if state == "success" else 1


def _watch(console: Console, stack: AirflowStack, dispatcher: Dispatcher, run_id: str) -> str:
    """Show the run's progress until it is over; return its state.

    Raises:
        AirflowStackError: A process of Airflow ended, or the run did not within `LONGEST_SECONDS`.
    """
    shown = state = ""

    def show() -> bool:
        nonlocal shown, state
        state = stack.run_state(DAG_ID, run_id)
        summaries = summarise(dispatcher, DAG_ID, run_id, now=datetime.now(UTC))
        if console.is_terminal:
            live.update(progress_table(summaries))
        elif (news := _news(summaries, stack, run_id)) != shown:
            console.print(news, soft_wrap=True, markup=False)
            shown = news
        return state in FINAL_RUN_STATES

    with Live(console=console, refresh_per_second=2, transient=console.is_terminal) as live:
        stack.wait_until(show, "the run to end", LONGEST_SECONDS)
    return state


def _news(summaries: Sequence[TaskSummary], stack: AirflowStack, run_id: str) -> str:
    """Return one line on the newest attempt, for a log that cannot be redrawn."""
    troubled = [t for t in stack.task_instances(DAG_ID, run_id) if t["state"] == "up_for_retry"]
    if troubled:
        return f"{troubled[0]['task_id']} failed and will be tried again; its log is below {stack.home}/logs"
    if not summaries:
        return "waiting for the first lease"
    attempt = max((a for s in summaries for a in s.attempts), key=lambda a: a.report.lease.token)
    lease, heartbeat = attempt.report.lease, attempt.heartbeat
    step = (
        f", step {heartbeat.step} of {heartbeat.total_steps}"
        if heartbeat and heartbeat.step
        else ""
    )
    loss = (
        f", loss {heartbeat.metrics['loss']:.3f}"
        if heartbeat and "loss" in heartbeat.metrics
        else ""
    )
    cost = sum(s.marginal_cost for s in summaries)
    return (
        f"{lease.task.task_id} attempt {lease.number} on {lease.pool} ({attempt.report.market.value}): "
        f"{lease.state.value}{step}{loss}; {cost:.6f} USD added so far"
    )


def _report(
    console: Console,
    stack: AirflowStack,
    summaries: Sequence[TaskSummary],
    run_id: str,
    state: str,
    began: float,
) -> None:
    console.print()
    console.print(cost_table(summaries))
    added = sum(s.marginal_cost for s in summaries)
    on_demand = sum(s.on_demand_cost or 0 for s in summaries)
    attempts = [attempt for summary in summaries for attempt in summary.attempts]
    preempted = sum(a.report.lease.state is LeaseState.PREEMPTED for a in attempts)
    if on_demand:
        console.print(
            f"Added to the bill: {added:.6f} USD; on-demand would have added {on_demand:.6f} USD: "
            f"[bold]{1 - added / on_demand:.0%} saved[/], with {preempted} preemptions survived."
        )
    console.print("\nWhy there:")
    for line in reasons(summaries):
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
    if state == "success":
        _print_result(console, stack, run_id)
    else:
        _print_failures(console, stack, run_id)
    console.print(
        f"\nThe run ended in {state} after {time.monotonic() - began:.0f} s. Look at it:\n"
        f"  the books     {stack.home}/spillway/ledger.db\n"
        f"  the datasets  {stack.home}/spillway/data\n"
        f"  the UI        make demo ARGS=--keep leaves it up, with the page under Browse, Spillway",
        soft_wrap=True,
    )


def _print_result(console: Console, stack: AirflowStack, run_id: str) -> None:
    path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/train/xcomEntries/return_value"
    value = stack.request("GET", path)["value"]
    result: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    console.print(
        f"\nTrained {result['parameters']:,} parameters for {result['steps']} steps: validation loss "
        f"[bold]{result['validation_loss']:.3f}[/] nats a token, against {result['unigram_loss']:.3f} of the unigram entropy."
    )


def _print_failures(console: Console, stack: AirflowStack, run_id: str) -> None:
    for instance in stack.task_instances(DAG_ID, run_id):
        if instance["state"] == "failed":
            console.print(
                f"[red]failed: {instance['task_id']}[/]; its log is below {stack.home}/logs"
            )


def _open(home: Path, pools_file: Path) -> Dispatcher:
    """Return a dispatcher on the demo's deployment, beside Airflow."""
    spillway_home = home / "spillway"
    return Dispatcher(
        pools=load_pools(pools_file, backends=registry.names()),
        ledger=Ledger.open(f"sqlite:///{spillway_home / 'ledger.db'}"),
        store_url=(spillway_home / "checkpoints").as_uri(),
        backend_of=lambda pool: registry.load(pool, home=spillway_home, connection=None),
    )


def _stop_jobs(home: Path, pools_file: Path) -> None:
    """Stop every job that still runs: jobs outlive Airflow, which is what they are for."""
    if (home / "spillway" / "ledger.db").exists():
        reconcile(_open(home, pools_file), lambda _: False)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
