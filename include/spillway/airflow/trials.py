"""A sweep in one lease, and the table of one that was spread: what trials say of themselves, and the ledger of their leases."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException
from typing_extensions import override

from spillway.airflow.context import task_key
from spillway.airflow.hook import DEFAULT_CONNECTION, SpillwayHook
from spillway.airflow.links import PlacementLink, SweepLink
from spillway.airflow.operators import SpillwayOperator
from spillway.errors import SpecError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow.sdk import Context
    from pydantic import JsonValue

    from spillway.airflow.run_options import RunOptions
    from spillway.ledger.reports import LeaseReport
    from spillway.model import TaskSpec
    from spillway.workloads.sweeping.rows import Row

_MOST_LEASES: Final = 100_000


class _ShapedOperator(SpillwayOperator):
    """An operator whose run may say what it needs.

    Args:
        shape: Resources to ask for instead of the operator's own, by their names; those that are None are not. Templated.
        kwargs: What `SpillwayOperator` takes.
    """

    template_fields: Sequence[str] = (*SpillwayOperator.template_fields, "shape")

    def __init__(self, *, shape: Mapping[str, Any] | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape: Any = shape or {}  # a template, until it is rendered

    @override
    def _spec(self, options: RunOptions, *, started_at: datetime | None) -> TaskSpec:
        spec = super()._spec(options, started_at=started_at)
        try:
            given = {name: value for name, value in dict(self.shape).items() if value is not None}
            return replace(spec, resources=replace(spec.resources, **given))
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"shape of {self.task_id} is {self.shape!r}: give a mapping of cpus, memory_gib, accelerator and the like"
            ) from error


class SweepOperator(_ShapedOperator):
    """Runs a sweep in one lease; a button on the task opens its plots and its table, which are in `output_folder`."""

    operator_extra_links = (PlacementLink(), SweepLink())


class TrialOperator(_ShapedOperator):
    """Runs one trial of a spread sweep; skips it, and places nothing, when the sweep has ended."""

    def execute(self, context: Context) -> JsonValue:
        """Run the trial, unless that is not wanted any more.

        Raises:
            AirflowSkipException: The sweep has ended; says why.
        """
        from spillway.workloads import spread  # here, as DAG files import this module

        try:
            why = spread.why_ended(f"{self._hook.deployment.data.rstrip('/')}/{self.output_folder}")
        except StoreUnavailableError as error:
            self._come_back(error)
        if why is None:
            return super().execute(context)
        self._hook.dispatcher().cancel_task(task_key(context["ti"]), detail="the sweep has ended")
        raise AirflowSkipException(f"the sweep has ended: {why}")


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
