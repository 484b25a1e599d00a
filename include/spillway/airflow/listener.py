"""Stops the job of a task that a person marked failed, succeeded or skipped; loads early what every task imports.

Its trigger may be in no process at that moment, and then hears nothing of it. Only the marks are acted on: those reach the
API server, or the scheduler, as rows of the database. What a worker reports of itself is the operator's business.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from airflow.listeners import hookimpl

log = logging.getLogger(__name__)

_ENDED = frozenset({"failed", "success", "skipped"})


@hookimpl
def on_starting(component: Any) -> None:
    """Import what DAG files import in the process that they are forked from.

    The scheduler forks its local executor's tasks, the DAG processor a process for each file: those find it imported, where
    each would take most of its time for that.
    """
    if hasattr(
        component, "_sa_instance_state"
    ):  # one of Airflow's own processes; a task imports what it needs
        import_module("spillway.airflow.pipeline")


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any, error: Any) -> None:  # noqa: ARG001
    """Stop what still runs for a task marked failed."""
    _stop(task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """Stop what still runs for a task marked success."""
    _stop(task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:  # noqa: ARG001
    """Stop what still runs for a task marked skipped, or skipped by a run's timeout."""
    _stop(task_instance)


def _stop(task_instance: Any) -> None:
    if not hasattr(task_instance, "_sa_instance_state") or task_instance.state not in _ENDED:
        return
    # Imported here: listeners are loaded in every process, and few of them ever stop a job.
    from spillway.airflow.context import task_key
    from spillway.airflow.hook import SpillwayHook
    from spillway.errors import SpillwayError

    task = task_key(task_instance)
    try:
        dispatcher = SpillwayHook().dispatcher()
        if dispatcher.cancel_task(task, detail=f"Airflow ended the task as {task_instance.state}"):
            log.info("job stopped: %s ended as %s", task, task_instance.state)
    except SpillwayError:
        log.exception("the job of %s was not stopped; reconciliation will try again", task)
