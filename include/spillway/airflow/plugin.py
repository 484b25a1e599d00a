"""The Airflow plugin: the page and the listener. Registered by `plugins/spillway_plugin.py` and nowhere else.

Every Airflow process imports this module, so what only the API server needs is imported when it asks.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from spillway.airflow import listener
from spillway.airflow.links import PAGE_PREFIX


class SpillwayPlugin(AirflowPlugin):
    """Adds the placement and cost page, and stops jobs whose tasks are ended by hand."""

    name = "spillway"
    listeners = [listener]  # noqa: RUF012 # Airflow's plugin attributes are plain lists
    external_views = [  # noqa: RUF012
        {
            "name": "Spillway",
            "href": f"{PAGE_PREFIX}/page",
            "destination": "nav",
            "url_route": "spillway",
            "category": "browse",
        },
        {
            "name": "Placement and cost",
            "href": f"{PAGE_PREFIX}/page?dag_id={{DAG_ID}}&run_id={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "spillway-run",
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]  # computed when asked for
        """The page's application, built when the API server asks for it."""
        from spillway.airflow.page import make_app

        return [{"app": make_app(), "url_prefix": PAGE_PREFIX, "name": "Spillway"}]
