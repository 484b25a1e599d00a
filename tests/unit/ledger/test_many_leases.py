"""What the ledger tells of more leases than one query of SQLite or PostgreSQL has parameters for."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from spillway.ledger import Ledger
from spillway.model import JobEvent
from spillway.testing.ledger_samples import NOON, sample_request

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.pool import ConnectionPoolEntry

LEASES = 10_600
LIMIT = 10_500
"""SQLite's is 32,766 unless it was built with another; so many leases would take longer."""

COPY = """
WITH RECURSIVE numbers(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < :leases)
INSERT INTO {table} SELECT {columns} FROM {table}, numbers
"""


def copied(connection: sqlite3.Connection, table: str, **changes: str) -> None:
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    columns = ", ".join(changes.get(name, name) for name in names)
    connection.execute(COPY.format(table=table, columns=columns), {"leases": LEASES})


def test_the_runs_of_years_are_told_with_their_costs(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(f"sqlite:///{path}")
    lease = ledger.grant(sample_request(), slots=1, now=NOON)
    for happened in (JobEvent.STARTED, JobEvent.SUCCEEDED):
        ledger.record(lease.key, happened, now=NOON)
    ledger.end(lease.key, now=NOON.replace(hour=13))
    ledger.close()
    with sqlite3.connect(path) as connection:
        copied(connection, "lease", token="n", key="'copy/' || n", run_id="'run' || n")
        copied(connection, "placement", lease_token="n")
        copied(connection, "cost_record", lease_token="n")
    connection.close()

    def limited(driver: Any, _: ConnectionPoolEntry) -> None:
        driver.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, LIMIT)

    event.listen(Engine, "connect", limited)
    try:
        runs = ledger.runs(now=NOON.replace(hour=14), limit=LEASES)
        ledger.close()
    finally:
        event.remove(Engine, "connect", limited)
    assert len(runs) == LEASES
    assert {run.list_cost for run in runs} == {lease.list_usd_per_hour}
