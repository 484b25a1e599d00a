"""The tables that the demo prints."""

from __future__ import annotations

from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING

from rich.table import Table

from spillway.demo.summary import by_task
from spillway.placement.lifecycle import is_final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spillway.demo.summary import Attempt, TaskSummary

_STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "starting": "cyan",
    "preempted": "yellow",
    "failed": "red",
    "vanished": "red",
    "cancelled": "magenta",
}


def progress_table(summaries: Sequence[TaskSummary]) -> Table:
    """Return one row an attempt, as things stand."""
    table = Table(title="nightly, live", title_justify="left", expand=False)
    for heading in ("task", "attempt", "pool", "backend", "market", "state"):
        table.add_column(heading)
    for heading in ("step", "loss", "leased, s", "added, USD"):
        table.add_column(heading, justify="right")
    for summary in summaries:
        for attempt in summary.attempts:
            table.add_row(*_attempt_cells(summary, attempt))
    return table


def _attempt_cells(summary: TaskSummary, attempt: Attempt) -> tuple[str, ...]:
    lease, heartbeat = attempt.report.lease, attempt.heartbeat
    state = lease.state.value
    step = loss = ""
    if heartbeat is not None and heartbeat.step is not None:
        step = f"{heartbeat.step}/{heartbeat.total_steps or '?'}"
        loss = f"{heartbeat.metrics['loss']:.3f}" if "loss" in heartbeat.metrics else ""
    return (
        summary.name,
        str(lease.number),
        lease.pool,
        lease.backend,
        attempt.report.market.value,
        f"[{_STYLES.get(state, 'white')}]{state}[/]",
        step,
        loss,
        f"{attempt.leased.total_seconds():.0f}",
        f"{attempt.report.marginal_cost:.6f}",
    )


def cost_table(summaries: Sequence[TaskSummary]) -> Table:
    """Return one row a task: where it ran, what it cost, and what on-demand would have cost; the sums at the end."""
    table = Table(
        title="What ran where, and what it cost (USD)", title_justify="left", show_footer=True
    )
    added = sum((s.marginal_cost for s in summaries), Decimal(0))
    effective = sum((s.effective_cost for s in summaries), Decimal(0))
    on_demand = sum((s.on_demand_cost or Decimal(0) for s in summaries), Decimal(0))
    table.add_column("task", footer="together")
    table.add_column("pools", overflow="fold")
    over_several = len(backends(summaries)) > 1
    if over_several:
        table.add_column("backends", overflow="fold")
    table.add_column("leased, s", justify="right")
    table.add_column("added", justify="right", footer=f"{added:.6f}")
    table.add_column("effective", justify="right", footer=f"{effective:.6f}")
    table.add_column("on-demand", justify="right", footer=f"{on_demand:.6f}")
    for name, group in by_task(summaries):
        leased = sum(a.leased.total_seconds() for s in group for a in s.attempts)
        table.add_row(
            name if len(group) == 1 else f"{name} (x{len(group)})",
            _together(summary.road for summary in group),
            *([_together(summary.backends for summary in group)] if over_several else []),
            f"{leased:.0f}",
            f"{sum((s.marginal_cost for s in group), Decimal(0)):.6f}",
            f"{sum((s.effective_cost for s in group), Decimal(0)):.6f}",
            f"{sum((s.on_demand_cost or Decimal(0) for s in group), Decimal(0)):.6f}",
        )
    return table


def reasons(summaries: Sequence[TaskSummary]) -> list[str]:
    """Return, for each attempt, why it ran where it ran, and why it ended there."""
    lines = []
    for _, group in by_task(summaries):
        for attempt in group[0].attempts:
            report = attempt.report
            ended = (
                f"; {report.lease.detail}"
                if is_final(report.lease.state) and report.lease.detail
                else ""
            )
            lines.append(
                f"{group[0].name}, attempt {report.lease.number}, {report.lease.pool}: "
                f"{report.placement_reason}{ended}"
            )
    return lines


def moves(summaries: Sequence[TaskSummary]) -> list[str]:
    """Return a line on each task that went on elsewhere, and one on how often that happened; none on a single backend."""
    if len(backends(summaries)) < 2:
        return []
    lines = []
    for summary in summaries:
        if summary.moves:
            leases = (attempt.report.lease for attempt in summary.attempts)
            stops = [stop for stop, _ in groupby(f"{le.pool} ({le.backend})" for le in leases)]
            lines.append(f"{summary.name} went from {' to '.join(stops)}.")
    between_pools = sum(summary.moves for summary in summaries)
    between_backends = sum(summary.moves_between_backends for summary in summaries)
    lines.append(f"Moves: {between_pools}, of which {between_backends} to another backend.")
    return lines


def backends(summaries: Sequence[TaskSummary]) -> set[str]:
    """Return the backends that something ran on."""
    return {attempt.report.lease.backend for one in summaries for attempt in one.attempts}


def _together(roads: Iterable[str]) -> str:
    return ", ".join(sorted(set(roads)))
