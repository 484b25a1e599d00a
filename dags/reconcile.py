"""Find and put right what crashes left: jobs without a lease, leases without a task."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from spillway.airflow.operators import ReconcileOperator

with DAG(
    dag_id="reconcile",
    schedule=timedelta(minutes=5),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=10),
    is_paused_upon_creation=False,
    tags=["spillway", "maintenance"],
    doc_md="""\
### Reconcile

Cancelling reaches a job by its trigger, its operator, its successor or a listener, and each of these can be missing at the
wrong moment. This run compares what the providers run with the ledger and the ledger with Airflow, and releases what nobody
answers for. Its result lists what it found; on a quiet day it is empty.
""",
) as dag:
    ReconcileOperator(task_id="reconcile")
