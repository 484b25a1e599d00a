"""What the demo says in words: how far the run is, and what it came to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spillway.demo.tables import cost_table, moves, reasons
from spillway.model import LeaseState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from spillway.demo.site import Site
    from spillway.demo.summary import Attempt, TaskSummary
    from spillway.testing.airflow_stack import AirflowStack


def news(
    summaries: Sequence[TaskSummary], stack: AirflowStack, dag_id: str, run_id: str
) -> tuple[str, str]:
    """Return what the newest attempt is at, and how far it is: one line together, for a log that cannot be redrawn."""
    troubled = [t for t in stack.task_instances(dag_id, run_id) if t["state"] == "up_for_retry"]
    if troubled:
        what = f"{troubled[0]['task_id']} failed and will be tried again"
        return what, f"; its log is below {stack.home}/logs"
    if not summaries:
        return "waiting for the first lease", ""
    attempt = max((a for s in summaries for a in s.attempts), key=lambda a: a.report.lease.token)
    lease, market = attempt.report.lease, attempt.report.market.value
    where = lease.pool if lease.backend == "local" else f"{lease.pool} by {lease.backend}"
    what = f"{lease.task.task_id} attempt {lease.number} on {where} ({market}): {lease.state.value}"
    cost = sum(s.marginal_cost for s in summaries)
    return what, f"{_progress(attempt)}; {cost:.6f} USD added so far"


def _progress(attempt: Attempt) -> str:
    heartbeat = attempt.heartbeat
    if heartbeat is None:
        return ""
    step = f", step {heartbeat.step} of {heartbeat.total_steps}" if heartbeat.step else ""
    loss = f", loss {heartbeat.metrics['loss']:.3f}" if "loss" in heartbeat.metrics else ""
    return step + loss


def report(
    console: Console,
    stack: AirflowStack,
    site: Site,
    summaries: Sequence[TaskSummary],
    dag_id: str,
    run_id: str,
) -> None:
    """Print what ran where, why, what it cost, what came of it and where to look."""
    console.print()
    console.print(cost_table(summaries))
    _print_sums(console, summaries)
    console.print("\nWhy there:")
    for line in reasons(summaries):
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
    state = stack.run_state(dag_id, run_id)
    if state == "success":
        _print_result(console, stack, dag_id, run_id)
    else:
        _print_failures(console, stack, dag_id, run_id)
    console.print(f"\nThe run ended in {state}. Look at it:")
    for what, where in {
        "the books": f"{site.home}/spillway/ledger.db",
        "the datasets": f"{site.home}/spillway/data",
        "the pools": str(site.pools_file),
    }.items():
        console.print(f"  {what:<14}{where}", soft_wrap=True)


def _print_sums(console: Console, summaries: Sequence[TaskSummary]) -> None:
    attempts = [attempt for summary in summaries for attempt in summary.attempts]
    preempted = sum(a.report.lease.state is LeaseState.PREEMPTED for a in attempts)
    added = sum(s.marginal_cost for s in summaries)
    on_demand = sum(s.on_demand_cost or 0 for s in summaries)
    if on_demand:
        console.print(
            f"Added to the bill: {added:.6f} USD; on-demand would have added {on_demand:.6f} USD: "
            f"[bold]{1 - added / on_demand:.0%} saved[/], with {preempted} preemptions survived."
        )
    for line in moves(summaries):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _print_result(console: Console, stack: AirflowStack, dag_id: str, run_id: str) -> None:
    path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/train/xcomEntries/return_value"
    value = stack.request("GET", path)["value"]
    result: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
    console.print(
        f"\nTrained {result['parameters']:,} parameters for {result['steps']} steps: validation loss "
        f"[bold]{result['validation_loss']:.3f}[/] nats a token, against {result['unigram_loss']:.3f} of the unigram entropy."
    )


def _print_failures(console: Console, stack: AirflowStack, dag_id: str, run_id: str) -> None:
    for instance in stack.task_instances(dag_id, run_id):
        if instance["state"] == "failed":
            console.print(
                f"[red]failed: {instance['task_id']}[/]; its log is below {stack.home}/logs"
            )
