"""The button on a task that opens its placement and cost."""

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
