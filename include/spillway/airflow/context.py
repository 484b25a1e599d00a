"""Airflow's words for a task instance, turned into ours."""

from __future__ import annotations

from typing import Any, Final

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from spillway.model import TaskKey

ALIVE_STATES: Final = frozenset(
    {"scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule"}
)
"""States in which Airflow still means to finish the task. Source: `airflow.utils.state.TaskInstanceState`, 3.3."""


def task_key(ti: Any) -> TaskKey:
    """Return the key of `ti`: a task instance as a worker, a trigger or the API server has it."""
    map_index = ti.map_index if ti.map_index is not None else -1
    return TaskKey(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=map_index)


def life(ti: Any) -> int:
    """Return a number that grows when the task is cleared, and not when it is retried: a clear begins another life.

    It is Airflow's `max_tries`, which a clear sets to the tries so far plus `retries`. The run's `clear_number` would not do:
    clearing one task raises it for all.
    """
    return int(ti.max_tries)


def task_state(task: TaskKey) -> str | None:
    """Return what Airflow says of the task now, or None when it has no state or is gone. Blocks; not for event loops."""
    states = RuntimeTaskInstance.get_task_states(
        dag_id=task.dag_id,
        task_ids=[task.task_id],
        run_ids=[task.run_id],
        map_index=task.map_index,
    )
    return next(iter(states.get(task.run_id, {}).values()), None)
