"""Turn the source text of Python's standard library into token shards."""

from airflow.sdk import DAG

from spillway.airflow.pipeline import (
    DATA_KEY,
    DEFAULT_ARGS,
    MACROS,
    engine_param,
    preprocess_tasks,
    size_params,
)
from spillway.airflow.run_options import placement_params

with DAG(
    dag_id="preprocess",
    schedule=None,
    params={**size_params(), **engine_param(), **placement_params()},
    user_defined_macros=MACROS,
    render_template_as_native_obj=True,
    default_args=DEFAULT_ARGS,
    tags=["spillway"],
    doc_md="""\
### Preprocess

Collects the Python files of the standard library as installed, normalises them, drops copies, trains a byte-level BPE and
writes Parquet shards with a manifest, one mapped task a shard. Running it again gives the same bytes.

With the engine `ray` Ray Data encodes, over the cluster of a Ray pool, or over one that is started for the lease, and writes the
same bytes. On one machine the embedded way is the faster one; `make bench ARGS=preprocess` compares them.

The result of `merge` names the dataset: give it to the `sweep` or `train` DAG.
""",
) as dag:
    preprocess_tasks(f"preprocess/{DATA_KEY}", engine="{{ params.engine }}")
