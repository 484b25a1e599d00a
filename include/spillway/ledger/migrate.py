"""Brings a database to the tables this code knows, however many processes start at once."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from spillway.errors import LedgerError
from spillway.ledger.database import lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config

    from spillway.ledger.database import Database

HEAD: Final = "0009"
"""The newest migration, written here so that a ledger at head is recognised without loading Alembic."""

VERSION_TABLE: Final = "spillway_ledger_version"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def migrate(database: Database) -> None:
    """Bring `database` to `HEAD`, making it when there is none; one read when it is there already.

    One process migrates and the others wait for it; a migration that fails leaves the database as it was.

    Raises:
        LedgerError: The folder cannot be written, or the database is newer than this code.
        LedgerUnavailableError: The database did not answer.
    """
    if not database.is_postgres and not database.path.exists():
        _make_folder(database.path.parent)
    elif _version(database) == HEAD:
        return
    with _alone(database), database.write() as connection:
        lock(connection, "migrate", VERSION_TABLE)
        _upgrade(connection)


def check_is_current(database: Database) -> None:
    """Check that `database` is a ledger at `HEAD`, and change nothing.

    Raises:
        LedgerError: There is no ledger, or one of another schema.
        LedgerUnavailableError: The database did not answer.
    """
    is_there = database.is_postgres or database.path.is_file()
    version = _version(database) if is_there else None
    if version is None:
        raise LedgerError(
            f"there is no ledger at {database.url.database}; give the URL that Airflow's connection has"
        )
    if version != HEAD:
        raise LedgerError(
            f"the ledger has schema {version} and this Spillway reads schema {HEAD}: "
            "use the version of Spillway here that Airflow runs"
        )


def config() -> Config:
    """Return what Alembic needs to know to find the ledger's migrations."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return settings


def _version(database: Database) -> str | None:
    with database.read() as connection:
        return _current(connection)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - our constant
    return None if version is None else str(version)


def _upgrade(connection: Connection) -> None:
    """Run what is missing; asks again for the version, now that nobody else can change it."""
    current = _current(connection)
    if current == HEAD:
        return
    from alembic import command
    from alembic.script import ScriptDirectory

    settings = config()
    known = {script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()}
    if current is not None and current not in known:
        raise LedgerError(
            f"the ledger has schema {current} and this Spillway knows schemas up to {HEAD}: "
            "upgrade Spillway here to the version of the process that migrated it"
        )
    settings.attributes["connection"] = connection
    command.upgrade(settings, "head")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """Keep other processes out of the SQLite file while its journal changes, which cannot be waited for otherwise."""
    if database.is_postgres:
        yield
        return
    path = database.path
    try:
        lock_file = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    with lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        database.use_write_ahead_log()
        yield


def _not_writable(folder: Path, error: OSError) -> LedgerError:
    return LedgerError(
        f"the ledger's folder {folder} cannot be written: {error.strerror}; "
        "let this user write there, or name another file in the ledger's URL"
    )
