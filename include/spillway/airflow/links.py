"""The buttons on a task: one opens its placement and cost, one the plots and the table of its sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


PAGE_PREFIX: Final = "/spillway"
"""Where the API server mounts the page."""


class PlacementLink(BaseOperatorLink):
    """Opens what ran where for one task instance, and why."""

    name = "Placement and cost"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        """Return the page's address; made of the key alone, as the operator is a new instance after every deferral."""
        query = urlencode(
            {
                "dag_id": ti_key.dag_id,
                "run_id": ti_key.run_id,
                "task_id": ti_key.task_id,
                "map_index": ti_key.map_index,
            }
        )
        return f"{PAGE_PREFIX}/page?{query}"


class SweepLink(BaseOperatorLink):
    """Opens the plots and the table of trials of the sweep that a task ran, or collected."""

    name = "Sweep"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's address; the folder is a template, rendered whenever the task begins or goes on."""
        query = urlencode(
            {
                "dag_id": ti_key.dag_id,
                "run_id": ti_key.run_id,
                "folder": getattr(operator, "output_folder", None) or "",
            }
        )
        return f"{PAGE_PREFIX}/sweep?{query}"
