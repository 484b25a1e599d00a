"""A sweep in one lease, and the table of one that was spread: what trials say of themselves, and the ledger of their leases."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseOperator

from spillway.airflow.context import task_key
from spillway.airflow.hook import DEFAULT_CONNECTION, SpillwayHook
from spillway.airflow.links import PlacementLink, SweepLink
from spillway.airflow.operators import SpillwayOperator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.sdk import Context
    from pydantic import JsonValue

    from spillway.ledger.reports import LeaseReport
    from spillway.workloads.sweeping.rows import Row

_MOST_LEASES: Final = 100_000


class SweepOperator(SpillwayOperator):
    """Runs a sweep in one lease; a button on the task opens its plots and its table, which are in `output_folder`."""

    operator_extra_links = (PlacementLink(), SweepLink())


class CollectTrialsOperator(BaseOperator):
    """Returns the best trial and the table of all, when the tasks of a spread sweep are over.

    Args:
        output_folder: That of the trials. Templated.
        trials: Id of the mapped task that runs them; its map index is the trial's number.
        spillway_conn_id: Connection of type `spillway`; the default needs not be defined.
    """

    template_fields: Sequence[str] = ("output_folder",)
    operator_extra_links = (SweepLink(),)
    ui_color = "#dcebf7"

    def __init__(
        self,
        *,
        output_folder: str,
        trials: str,
        spillway_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_folder = output_folder
        self.trials = trials
        self.spillway_conn_id = spillway_conn_id

    def execute(self, context: Context) -> dict[str, JsonValue]:
        """Return the table, with pools and costs from the ledger."""
        from spillway.workloads import spread  # here, as DAG files import this module

        hook = SpillwayHook(self.spillway_conn_id)
        output = f"{hook.deployment.data.rstrip('/')}/{self.output_folder}"
        search, rows = spread.read_rows(output)
        run = task_key(context["ti"])
        reports = hook.dispatcher().ledger.runs(
            dag_id=run.dag_id, run_id=run.run_id, now=datetime.now(UTC), limit=_MOST_LEASES
        )
        ours = [report for report in reports if report.lease.task.task_id == self.trials]
        return spread.table(output, with_costs(rows, ours), search)


def with_costs(rows: Iterable[Row], reports: Iterable[LeaseReport]) -> list[Row]:
    """Return the rows with the leased time, the costs and the pools of their leases, all attempts and tries together."""
    by_trial: dict[int, list[LeaseReport]] = defaultdict(list)
    for report in sorted(reports, key=lambda report: report.lease.token):
        by_trial[report.lease.task.map_index].append(report)
    return [_with_costs(row, by_trial[row.trial]) for row in rows]


def _with_costs(row: Row, reports: Sequence[LeaseReport]) -> Row:
    return replace(
        row,
        seconds=sum(
            (report.lease.ended_at - report.lease.granted_at).total_seconds()
            for report in reports
            if report.lease.ended_at is not None
        ),
        marginal_usd=float(sum(report.marginal_cost for report in reports)),
        effective_usd=float(sum(report.effective_cost for report in reports)),
        pools=tuple(dict.fromkeys(report.lease.pool for report in reports)),
    )
