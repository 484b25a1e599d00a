"""Search learning rate and width on a dataset that `preprocess` made."""

from airflow.sdk import DAG

from spillway.airflow.pipeline import (
    DEFAULT_ARGS,
    MACROS,
    dataset_param,
    search_params,
    size_params,
    sweep_mode_param,
    sweep_tasks,
)
from spillway.airflow.run_options import placement_params

with DAG(
    dag_id="sweep",
    schedule=None,
    params={
        **dataset_param(),
        **size_params(),
        **sweep_mode_param(),
        **search_params(),
        **placement_params(),
    },
    user_defined_macros=MACROS,
    render_template_as_native_obj=True,
    default_args=DEFAULT_ARGS,
    tags=["spillway"],
    doc_md="""\
### Sweep

A search for good parameters, over learning rate and width unless `space` says otherwise, with trials that are stopped early where
others do better. `mode` says where they run:

* `one_lease`: Ray Tune on a Ray that lives inside one lease. A preempted sweep does not run its finished trials again.
* `spread`: each trial is a task, placed on the pool that is the cheapest for it, and all share one study. A preempted trial goes
  on under its number, and a cleared one that has ended is not run again.

With random search equal seeds give the same trials in both. The result of `sweep` or `spread.table` holds the best parameters, the
table of trials and where the plots are; that of a spread sweep has each trial's pools and cost from the ledger.
""",
) as dag:
    sweep_tasks("{{ params.dataset }}")
