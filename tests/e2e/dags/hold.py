"""DAGs for the end-to-end tests: one job that lasts, watched or killed at chosen moments."""

import os
import signal
from datetime import timedelta

from airflow.sdk import DAG, Param

from spillway.airflow.operators import SpillwayOperator
from spillway.airflow.run_options import placement_params
from spillway.dispatch import Dispatcher


class _DyingDispatcher:
    """Dies as by kill -9 before or after the submission, while the task is at its first try."""

    def __init__(self, dispatcher: Dispatcher, moment: str) -> None:
        submit = dispatcher._submit

        def submit_and_die(lease):
            if moment == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            submitted = submit(lease)
            os.kill(os.getpid(), signal.SIGKILL)
            return submitted

        dispatcher._submit = submit_and_die
        self.dispatcher = dispatcher


class DyingOperator(SpillwayOperator):
    """Its worker is killed at `moment` of its first try."""

    def __init__(self, *, moment: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.moment = moment

    def execute(self, context):
        if context["ti"].try_number == 1:
            real = type(self._hook).dispatcher
            moment = self.moment
            type(self._hook).dispatcher = lambda hook: (
                _DyingDispatcher(real(hook), moment).dispatcher
            )
        return super().execute(context)


def count_arguments() -> dict:
    return {
        "entry_point": "spillway.testing.entry_points:count",
        "arguments": {"steps": "{{ params.steps }}", "seconds_per_step": 0.2},
        "checkpoints": True,
        "work": 60,
    }


PARAMS = {"steps": Param(100, type="integer"), **placement_params()}
OPTIONS = {
    "params": PARAMS,
    "render_template_as_native_obj": True,
    "default_args": {"retries": 2, "retry_delay": timedelta(seconds=1)},
}

with DAG(dag_id="hold", schedule=None, **OPTIONS):
    SpillwayOperator(task_id="count", **count_arguments())

for name in ("deleted", "deleted_unseen"):
    with DAG(dag_id=name, schedule=None, **OPTIONS):
        SpillwayOperator(task_id="count", **count_arguments())

with DAG(
    dag_id="hold_with_timeout", schedule=None, dagrun_timeout=timedelta(seconds=15), **OPTIONS
):
    SpillwayOperator(task_id="count", **count_arguments())

for moment in ("before", "after"):
    with DAG(dag_id=f"die_{moment}_submit", schedule=None, **OPTIONS):
        DyingOperator(task_id="count", moment=moment, **count_arguments())

with DAG(dag_id="hungry", schedule=None, **OPTIONS):
    SpillwayOperator(task_id="count", **{**count_arguments(), "cpus": 512})

with DAG(dag_id="lost", schedule=None, **OPTIONS):
    SpillwayOperator(task_id="count", entry_point="spillway.no_such_module:train", work=1)
