"""What Airflow asks a provider about itself; read by every Airflow process, so it imports nothing."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata. Source: `airflow/provider_info.schema.json` of Airflow 3.3."""
    return {
        "package-name": "spillway",
        "name": "Spillway",
        "description": "Send each task to the cheapest pool that can take it now, and survive preemption.",
        "integrations": [
            {
                "integration-name": "Spillway",
                "tags": ["service"],
            }
        ],
        "operators": [
            {
                "integration-name": "Spillway",
                "python-modules": ["spillway.airflow.operators", "spillway.airflow.trials"],
            }
        ],
        "triggers": [
            {"integration-name": "Spillway", "python-modules": ["spillway.airflow.triggers"]}
        ],
        "hooks": [{"integration-name": "Spillway", "python-modules": ["spillway.airflow.hook"]}],
        "connection-types": [
            {
                "connection-type": "spillway",
                "hook-name": "Spillway",
                "hook-class-name": "spillway.airflow.hook.SpillwayHook",
            }
        ],
        "extra-links": [
            "spillway.airflow.links.PlacementLink",
            "spillway.airflow.links.SweepLink",
        ],
        "config": {
            "spillway": {
                "description": "Where a deployment keeps its pools and its books; a `spillway` connection may say otherwise.",
                "options": {
                    "home": _option(
                        "Folder for the SQLite ledger, checkpoints, data and local pools. Default: `spillway` in AIRFLOW_HOME."
                    ),
                    "pools_file": _option(
                        "The pools of this deployment. Default: `include/pools.yaml` beside the DAGs folder."
                    ),
                    "poll_seconds": _option(
                        "Seconds between two looks at the jobs of one pool.",
                        type="float",
                        default="5",
                    ),
                },
            }
        },
    }


def _option(description: str, type: str = "string", default: str | None = None) -> dict[str, Any]:  # noqa: A002
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": type,
        "example": None,
        "default": default,
    }
