"""Leases granted, recorded and ended in a second, against the bare driver on the same database.

One lease is three transactions of the ledger, so a ratio of a third would mean that the ledger costs nothing.
"""

from __future__ import annotations

import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg
from measurement import Baseline, Measurement, NotHere

from spillway.ledger import Ledger
from spillway.model import JobEvent
from spillway.testing.ledger_samples import sample_pool, sample_request, sample_task
from spillway.testing.postgres import find_postgres, postgres_server

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
LEASES = 200
THREADS = 4


def run() -> list[Measurement]:
    """Measure both databases, as durable as in earnest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "ledger.db"
        measured = measure(
            "SQLite",
            f"sqlite:///{path}",
            lambda: sqlite3.connect(path, check_same_thread=False),
        )
    binaries = find_postgres()
    if binaries is None:
        raise NotHere("no PostgreSQL server is installed")
    with postgres_server(binaries, durable=True) as url:
        plain = url.replace("+psycopg", "")
        return measured + measure("PostgreSQL", url, lambda: psycopg.connect(plain))


def measure(database: str, url: str, connect: Callable[[], Any]) -> list[Measurement]:
    ledger = Ledger.open(url)

    def lease(number: int) -> None:
        granted = ledger.grant(sample_request(sample_task(f"t{number}")), slots=THREADS, now=NOW)
        ledger.record(granted.key, JobEvent.SUCCEEDED, now=NOW)
        ledger.end(granted.key, now=NOW + timedelta(minutes=90))

    lease(-1)
    with closing(connect()) as driver:
        driver.execute("CREATE TABLE bare (text TEXT)")
        driver.commit()

        def insert(_: int) -> None:
            driver.execute("INSERT INTO bare VALUES ('x')")
            driver.commit()

        bare = Baseline(name="insert and commit, bare driver", value=per_second(insert))
    alone = per_second(lease)
    together = per_second(lease, threads=THREADS, first=LEASES)
    reopen = per_second(lambda _: Ledger.open(url).close())
    usage = per_second(
        lambda _: ledger.usage([sample_pool("spot")], now=NOW, cool_down=timedelta(minutes=5))
    )
    ledger.close()
    return [
        Measurement(
            name=f"{database}: leases granted, recorded, ended",
            value=alone,
            unit="1/s",
            baseline=bare,
        ),
        Measurement(
            name=f"{database}: the same from {THREADS} threads",
            value=together,
            unit="1/s",
            baseline=bare,
        ),
        Measurement(
            name=f"{database}: ledgers opened at head", value=reopen, unit="1/s", baseline=bare
        ),
        Measurement(
            name=f"{database}: usage of a pool with {2 * LEASES} leases this month",
            value=usage,
            unit="1/s",
            baseline=bare,
        ),
    ]


def per_second(work: Callable[[int], object], *, threads: int = 1, first: int = 0) -> float:
    """Return how many calls of `work` were done in a second."""
    began = perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(first, first + LEASES)))
    return LEASES / (perf_counter() - began)
