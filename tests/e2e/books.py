"""An oracle for the books: reads the ledger's tables with SQL of its own and does the arithmetic in fractions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TO_THE_DOLLAR = Fraction(1, 10**8)


def check_books(ledger: Path, dag_id: str) -> int:
    """Assert that the DAG's cost records cover each lease exactly and sum to price times time; return the leases checked."""
    with closing(sqlite3.connect(ledger)) as connection:
        connection.row_factory = sqlite3.Row
        leases = connection.execute("select * from lease where dag_id = ?", (dag_id,)).fetchall()
        for lease in leases:
            records = connection.execute(
                "select * from cost_record where lease_token = ? order by charge_period_start",
                (lease["token"],),
            ).fetchall()
            _check_lease(lease, records)
    return len(leases)


def _check_lease(lease: sqlite3.Row, records: list[sqlite3.Row]) -> None:
    assert lease["ended_at"] is not None, f"{lease['key']} is open"
    start, end = _instant(lease["granted_at"]), _instant(lease["ended_at"])
    edges = [_instant(record["charge_period_start"]) for record in records]
    ends = [_instant(record["charge_period_end"]) for record in records]
    assert [start, *ends[:-1]] == edges, f"{lease['key']}: the periods leave a gap or overlap"
    assert ends[-1] == end, f"{lease['key']}: the periods do not end with the lease"
    hours = Fraction((end - start).total_seconds()).limit_denominator(10**6) / 3600
    for column, price in (
        ("marginal_cost", "marginal_usd_per_hour"),
        ("effective_cost", "effective_usd_per_hour"),
        ("list_cost", "list_usd_per_hour"),
    ):
        charged = sum((Fraction(record[column]) for record in records), Fraction(0))
        assert abs(charged - Fraction(lease[price]) * hours) < _TO_THE_DOLLAR, (
            lease["key"],
            column,
        )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
