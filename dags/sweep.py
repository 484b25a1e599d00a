"""Search learning rate and width on a dataset that `preprocess` made."""

from airflow.sdk import DAG, Param

from spillway.airflow.pipeline import DEFAULT_ARGS, MACROS, size_params, sweep_task
from spillway.airflow.run_options import placement_params

with DAG(
    dag_id="sweep",
    schedule=None,
    params={
        "dataset": Param(
            type="string",
            minLength=1,
            title="Dataset",
            description="Folder of the dataset: `dataset` in the result of the `preprocess` DAG's `merge` task.",
            section="Workload",
        ),
        **size_params(),
        **placement_params(),
    },
    user_defined_macros=MACROS,
    render_template_as_native_obj=True,
    default_args=DEFAULT_ARGS,
    tags=["spillway"],
    doc_md="""\
### Sweep

Ray Tune with ASHA over learning rate and width, on a Ray that lives inside one lease. A preempted sweep does not run its
finished trials again. The result holds the best parameters and the table of trials.
""",
) as dag:
    sweep_task("{{ params.dataset }}")
