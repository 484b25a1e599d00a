"""Train the small GPT on a dataset that `preprocess` made."""

from airflow.sdk import DAG, Param

from spillway.airflow.pipeline import (
    DEFAULT_ARGS,
    MACROS,
    TRAINING_ARGUMENTS,
    dataset_param,
    size_params,
    train_task,
    training_params,
)
from spillway.airflow.run_options import placement_params

with DAG(
    dag_id="train",
    schedule=None,
    params={
        **dataset_param(),
        "learning_rate": Param(
            0.004,
            type="number",
            exclusiveMinimum=0,
            maximum=1,
            title="Learning rate",
            section="Workload",
        ),
        "width": Param(
            64,
            type="integer",
            enum=[32, 64, 96, 128, 256],
            title="Width",
            description="Width of the model.",
            section="Workload",
        ),
        **training_params(),
        **size_params(),
        **placement_params(deadline_minutes=120),
    },
    user_defined_macros=MACROS,
    render_template_as_native_obj=True,
    default_args=DEFAULT_ARGS,
    tags=["spillway"],
    doc_md="""\
### Train

A small GPT in PyTorch. When its pool takes the capacity back, it goes on from its last checkpoint on the pool that is then
the cheapest, with the same data order, the same random numbers and the same loss. The validation loss is reported beside the
unigram and bigram entropies of the data.
""",
) as dag:
    train_task("{{ params.dataset }}", TRAINING_ARGUMENTS)
