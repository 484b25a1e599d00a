"""The ledger's connection to its database: URL, engine, short transactions, and errors in our words.

Two databases, one discipline. A write begins by taking the lock it needs (SQLite: the file's one write lock, by BEGIN
IMMEDIATE; PostgreSQL: advisory locks named by `Database.lock`), so what it reads stays true until it commits.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    QueuePool,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import (
    ArgumentError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from spillway.errors import LedgerError, LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.pool import ConnectionPoolEntry

LOCK_WAIT_SECONDS: Final = 60
_CONNECT_SECONDS: Final = 10
_WRITE: Final = "spillway_write"
_POSTGRES: Final = "postgresql+psycopg"
_EXAMPLES: Final = (
    "sqlite:////absolute/path/ledger.db or postgresql+psycopg://user:password@host/database"
)


class Database:
    """Short transactions on one database, from any thread of any process.

    Failures are `LedgerError`; those that say nothing of what was asked are `LedgerUnavailableError`.
    """

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self._engine = _postgres_engine(self.url) if self.is_postgres else _sqlite_engine(self.url)

    @property
    def is_postgres(self) -> bool:
        """Whether a server keeps it, and not a file."""
        return self.url.drivername == _POSTGRES

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(self.url.database or "")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that writes nothing and holds nobody up."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is committed whole, or not at all when the block raises."""
        with self._translated(), self._engine.connect() as connection:
            connection.execution_options(**{_WRITE: True})
            with connection.begin():
                yield connection

    def use_write_ahead_log(self) -> None:
        """Let readers of the SQLite file go on while somebody writes; the file remembers it."""
        with self._translated(), self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA journal_mode = WAL")

    def close(self) -> None:
        """Close idle connections; the next transaction opens a new one."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        where = self.url.render_as_string(hide_password=True)
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise LedgerUnavailableError(
                f"the ledger {where} did not answer: {_first_line(error)}. "
                f"See that {self._remedy()}; then call again"
            ) from error
        except SQLAlchemyError as error:
            raise LedgerError(f"the ledger {where} refused: {_first_line(error)}") from error

    def _remedy(self) -> str:
        if self.is_postgres:
            return "the server runs and takes connections from here, and the credentials are right"
        return f"{self.path.parent} is on a local disk, writable by this user and not full"


def parse_url(url: str) -> URL:
    """Return the database that `url` names.

    Raises:
        LedgerError: It is not a URL, or not of a database that the ledger knows; the message shows two that are.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise LedgerError(f"the ledger's URL is not a URL; write {_EXAMPLES}") from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername=_POSTGRES)
    if parsed.drivername == _POSTGRES:
        return parsed
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise LedgerError(f"the ledger cannot be kept in {parsed.drivername}; write {_EXAMPLES}")
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise LedgerError(
            f"the ledger's file must have an absolute path, because every process has its own working folder; "
            f"{parsed.database!r} has none. Write {_EXAMPLES}"
        )
    return parsed


def lock(connection: Connection, space: str, name: str) -> None:
    """Wait until this transaction alone may change `name`, and hold that until it ends.

    Whoever takes several takes them in the order task, pool, so nobody waits in a circle. On SQLite a write
    transaction is alone from its beginning, and there is nothing to take.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(
            select(
                func.pg_advisory_xact_lock(func.hashtext(f"spillway {space}"), func.hashtext(name))
            )
        )


def _first_line(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


def _sqlite_engine(url: URL) -> Engine:
    engine = _pooled_engine(
        url, connect_args={"timeout": LOCK_WAIT_SECONDS, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _configure(dbapi_connection: Any, _: ConnectionPoolEntry) -> None:
        # Python's driver would begin transactions too late, at the first write; `_begin` does it instead.
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA foreign_keys = ON")
        # `synchronous` stays FULL: a grant lost with the power would hand its token out twice.

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(url: URL) -> Engine:
    try:
        engine = _pooled_engine(
            url, pool_pre_ping=True, connect_args={"connect_timeout": _CONNECT_SECONDS}
        )
    except ImportError as error:
        raise LedgerError(
            "PostgreSQL needs a driver: pip install 'spillway[postgres]', or keep the ledger in SQLite"
        ) from error

    @event.listens_for(engine, "connect")
    def _configure(dbapi_connection: Any, _: ConnectionPoolEntry) -> None:
        # Nobody waits for a lock for ever, and a process that stops in the middle does not keep one for ever.
        wait = f"'{LOCK_WAIT_SECONDS}s'"
        dbapi_connection.execute(f"SET lock_timeout = {wait}")
        dbapi_connection.execute(f"SET idle_in_transaction_session_timeout = {wait}")
        dbapi_connection.commit()

    return engine


def _pooled_engine(url: URL, **options: Any) -> Engine:
    """Return an engine with few connections: threads that find all of them taken wait for their turn."""
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=2,
        max_overflow=6,
        pool_timeout=LOCK_WAIT_SECONDS,
        **options,
    )
    _pooled.add(engine)
    return engine


_pooled: WeakSet[Engine] = WeakSet()


def _close_idle_connections() -> None:
    for engine in list(_pooled):
        engine.dispose()


def _forget_connections() -> None:
    for engine in list(_pooled):
        engine.dispose(close=False)


# No connection crosses a fork: two processes would talk over one socket, and SQLite would believe that the child holds
# the file locks of its parent. Source: SQLite, "How To Corrupt An SQLite Database File", 2.6.
os.register_at_fork(before=_close_idle_connections, after_in_child=_forget_connections)
