"""Search learning rate and width on a dataset that `preprocess` made."""

from airflow.sdk import DAG

from spillway.airflow.pipeline import DEFAULT_ARGS, MACROS, dataset_param, size_params, sweep_task
from spillway.airflow.run_options import placement_params

with DAG(
    dag_id="sweep",
    schedule=None,
    params={
        **dataset_param(),
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
