"""What a run came to, task by task: where it ran, what it cost, and what on-demand would have cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING

from spillway.ledger import LeaseReport
from spillway.model import Heartbeat, LeaseState, Market

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spillway.dispatch import Dispatcher
    from spillway.model import Placement

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One lease of a task, with what its job last said."""

    report: LeaseReport
    heartbeat: Heartbeat | None
    leased: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """All attempts of one task, oldest first.

    Attributes:
        on_demand_cost: What the same work would have cost on on-demand capacity at list price, undisturbed; None where the
            deployment has no on-demand pool that fits.
    """

    name: str
    attempts: tuple[Attempt, ...]
    on_demand_cost: Decimal | None

    @property
    def marginal_cost(self) -> Decimal:
        """What the task added to the bill."""
        return sum((a.report.marginal_cost for a in self.attempts), Decimal(0))

    @property
    def effective_cost(self) -> Decimal:
        """What it cost with commitments amortised."""
        return sum((a.report.effective_cost for a in self.attempts), Decimal(0))

    @property
    def road(self) -> str:
        """The pools it went through."""
        return " → ".join(a.report.lease.pool for a in self.attempts)

    @property
    def backends(self) -> str:
        """The backends it went through."""
        return " → ".join(
            name for name, _ in groupby(a.report.lease.backend for a in self.attempts)
        )

    @property
    def moves(self) -> int:
        """How often it went on in another pool."""
        return _changes(a.report.lease.pool for a in self.attempts)

    @property
    def moves_between_backends(self) -> int:
        """How often it went on with another backend."""
        return _changes(a.report.lease.backend for a in self.attempts)


def summarise(
    dispatcher: Dispatcher, dag_id: str, run_id: str, *, now: datetime
) -> list[TaskSummary]:
    """Return every task of the run that was leased something, in the order of their first leases."""
    reports = dispatcher.ledger.runs(dag_id=dag_id, run_id=run_id, now=now, limit=1000)
    tasks: dict[str, list[LeaseReport]] = {}
    for report in sorted(reports, key=lambda one: one.lease.token):
        tasks.setdefault(_name(report), []).append(report)
    return [_summarise_task(dispatcher, name, of_task, now) for name, of_task in tasks.items()]


def by_task(summaries: Sequence[TaskSummary]) -> list[tuple[str, list[TaskSummary]]]:
    """Return the summaries with the instances of a mapped task together."""
    return [
        (name, list(group))
        for name, group in groupby(summaries, lambda one: one.name.split("[")[0])
    ]


def _changes(values: Iterable[str]) -> int:
    """Return how often a value differs from the one before."""
    return sum(1 for _ in groupby(values)) - 1


def _summarise_task(
    dispatcher: Dispatcher, name: str, reports: Sequence[LeaseReport], now: datetime
) -> TaskSummary:
    attempts = tuple(
        Attempt(
            report=report,
            heartbeat=dispatcher.heartbeat(report.lease),
            leased=(report.lease.ended_at or now) - report.lease.granted_at,
        )
        for report in reports
    )
    price = _on_demand_price(dispatcher.ledger.placement(reports[0].lease.key))
    hours = Decimal(str(undisturbed(attempts) / _HOUR))
    return TaskSummary(
        name=name, attempts=attempts, on_demand_cost=None if price is None else price * hours
    )


def undisturbed(attempts: Sequence[Attempt]) -> timedelta:
    """Return the leased time the task would have taken had nothing been taken back: one start, and the work that was kept.

    Where the last attempt reported no progress of its own, its whole lease counts as work.
    """
    kept = timedelta(0)
    for attempt in attempts:
        if attempt.heartbeat is not None:
            kept += attempt.heartbeat.useful
    first, last = attempts[0], attempts[-1]
    if last.heartbeat is None or last.heartbeat.first_progress_at is None:
        return kept + last.leased
    started = first.heartbeat.first_progress_at if first.heartbeat else None
    start = started - first.report.lease.granted_at if started else timedelta(0)
    is_over = last.report.lease.state is LeaseState.SUCCEEDED
    return kept + start if is_over else kept + start + (last.leased - last.heartbeat.useful)


def _on_demand_price(placement: Placement) -> Decimal | None:
    offers = [placement.offer, *(passed.offer for passed in placement.passed_over)]
    prices = [o.list_usd_per_hour for o in offers if o.market is Market.ON_DEMAND]
    return min(prices, default=None)


def _name(report: LeaseReport) -> str:
    task = report.lease.task
    return task.task_id + (f"[{task.map_index}]" if task.map_index >= 0 else "")
