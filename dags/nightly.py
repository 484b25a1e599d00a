"""Every night: preprocess, sweep, train with the sweep's best parameters."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from spillway.airflow.pipeline import (
    DATA_KEY,
    DEFAULT_ARGS,
    MACROS,
    preprocess_tasks,
    size_params,
    sweep_task,
    train_task,
)
from spillway.airflow.run_options import placement_params

with DAG(
    dag_id="nightly",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=12),
    params={**size_params(), **placement_params(deadline_minutes=240)},
    user_defined_macros=MACROS,
    render_template_as_native_obj=True,
    default_args=DEFAULT_ARGS,
    tags=["spillway"],
    doc_md="""\
### Nightly

Preprocessing, a sweep and training with the sweep's best parameters, each placed on the cheapest pool that can take it. A run
writes a folder named after its data interval, so running it again changes nothing, and
`airflow backfill create --dag-id nightly --from-date ... --to-date ...` fills a gap. A backfill uses only reserved, partner and
spot pools unless `markets` says otherwise.
""",
) as dag:
    dataset = preprocess_tasks(f"nightly/{DATA_KEY}")["dataset"]
    best = sweep_task(dataset, folder=f"nightly-sweep/{DATA_KEY}")["best"]
    train_task(dataset, best)
