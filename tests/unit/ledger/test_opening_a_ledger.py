from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, Table, insert, select, text

from spillway.errors import LedgerError, LedgerUnavailableError
from spillway.ledger import Ledger, schema
from spillway.ledger.database import Database, parse_url
from spillway.ledger.migrate import HEAD, VERSION_TABLE, config, migrate
from spillway.model import Heartbeat, Resources
from spillway.placement.throughput import speed_sample
from spillway.testing.ledger_race import together
from spillway.testing.ledger_samples import NOON, sample_request, sample_task

if TYPE_CHECKING:
    from pathlib import Path


WORKED = Heartbeat(
    token=1,
    written_at=NOON,
    step=20,
    total_steps=100,
    first_progress_at=NOON - timedelta(hours=1),
    first_step=10,
)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    made: str = request.getfixturevalue("postgres_url")
    return made


# ---- the URL


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("", "write sqlite:////"),
        ("ledger.db", "write sqlite:////"),
        ("sqlite://", "absolute path"),
        ("sqlite:///:memory:", "absolute path"),
        ("sqlite:///ledger.db", "absolute path"),
        ("mysql://host/ledger", "cannot be kept in mysql"),
        ("postgresql+asyncpg://host/ledger", "postgresql\\+psycopg://"),
    ],
)
def test_a_url_that_cannot_be_a_ledger_is_refused_with_one_that_can(url: str, remedy: str) -> None:
    with pytest.raises(LedgerError, match=remedy):
        Ledger.open(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgres_is_understood_however_airflow_spells_it(scheme: str) -> None:
    assert parse_url(f"{scheme}://host/ledger").drivername == "postgresql+psycopg"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerError, match=r"file/folder cannot be written.*another file"):
        Ledger.open(f"sqlite:///{tmp_path}/file/folder/ledger.db")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("what somebody else keeps here " * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(f"sqlite:///{path}")
    assert path.read_text().startswith("what somebody else")


def test_a_server_that_is_not_there_is_unavailable_and_no_password_is_told() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        url = f"postgresql+psycopg://me:hunter2@127.0.0.1:{port}/ledger"
        with pytest.raises(LedgerUnavailableError, match="server runs") as refused:
            Ledger.open(url)
    assert "hunter2" not in str(refused.value)


# ---- migrations


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [HEAD]


def test_migrations_make_exactly_the_tables_of_the_schema(url: str) -> None:
    database = Database(url)
    migrate(database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, schema.metadata) == []
    database.close()


def test_what_was_written_is_there_when_it_is_opened_again(url: str) -> None:
    first = Ledger.open(url)
    lease = first.grant(sample_request(), slots=1, now=NOON)
    first.close()
    again = Ledger.open(url)
    assert again.open_leases() == [lease]
    again.close()


def test_speeds_kept_before_slices_were_told_apart_are_those_of_what_was_leased(url: str) -> None:
    ledger = Ledger.open(url)
    for part in (1.0, 3 / 7):
        request = sample_request(sample_task(f"task_{part:.1f}"))
        shape = Resources(accelerator="H100", accelerator_count=1, accelerator_fraction=part)
        offer = replace(request.placement.offer, shape=shape)
        request = replace(request, placement=replace(request.placement, offer=offer))
        lease = ledger.grant(request, slots=2, now=NOON)
        sample = speed_sample(replace(request.spec, resources=shape), shape, WORKED)
        assert sample is not None
        ledger.note_speed(lease.key, sample)
    before = ledger.speeds(request.spec.workload, since=NOON - timedelta(days=1))
    ledger.close()
    database = Database(url)
    with database.write() as connection:
        settings = config()
        settings.attributes["connection"] = connection
        command.downgrade(settings, "0007")
    database.close()
    again = Ledger.open(url)
    assert [one.accelerator_fraction for one in before] == [1.0, 3 / 7]
    assert again.speeds(request.spec.workload, since=NOON - timedelta(days=1)) == before
    again.close()


def test_many_threads_open_a_new_ledger_at_once(url: str) -> None:
    def open_it(_: int) -> str:
        ledger = Ledger.open(url)
        leases = ledger.open_leases()
        ledger.close()
        return str(leases)

    assert together(16, open_it) == {"[]": 16}


def test_a_ledger_newer_than_the_code_is_left_alone(url: str) -> None:
    Ledger.open(url).close()
    database = Database(url)
    with database.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(LedgerError, match=r"schema 9999.*upgrade Spillway"):
        Ledger.open(url)
    database.close()


def test_who_only_reads_neither_makes_nor_migrates_a_ledger(url: str) -> None:
    with pytest.raises(LedgerError, match=r"there is no ledger at .*Airflow's connection"):
        Ledger.open_to_read(url)
    database = Database(url)
    if not database.is_postgres:
        assert not database.path.exists()
        database.path.touch()
        with pytest.raises(LedgerError, match="there is no ledger at"):
            Ledger.open_to_read(url)
        assert database.path.stat().st_size == 0
    ledger = Ledger.open(url)
    lease = ledger.grant(sample_request(), slots=1, now=NOON)
    ledger.close()
    reader = Ledger.open_to_read(url)
    assert reader.open_leases() == [lease]
    reader.close()
    with database.write() as connection:
        settings = config()
        settings.attributes["connection"] = connection
        command.downgrade(settings, "0008")
    with pytest.raises(LedgerError, match=f"schema 0008 .* schema {HEAD}: use the version"):
        Ledger.open_to_read(url)
    with database.read() as connection:
        version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    assert version == "0008"
    database.close()


def test_sqlite_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger, database = Ledger.open(url), Database(url)
    with database.write() as connection:
        connection.execute(text("DELETE FROM refusal"))
        assert ledger.open_leases() == []
        mode = connection.execute(text("PRAGMA journal_mode")).scalar()
        keys = connection.execute(text("PRAGMA foreign_keys")).scalar()
    assert (mode, keys) == ("wal", 1)


# ---- what the columns keep


@given(
    amount=st.decimals(allow_nan=False, allow_infinity=False)
    | st.decimals(min_value=0, max_value=10**9, places=18)
)
@settings(deadline=None, max_examples=50)
def test_sqlite_keeps_every_digit_of_money(
    tmp_path_factory: pytest.TempPathFactory, amount: Decimal
) -> None:
    database = Database(f"sqlite:///{tmp_path_factory.getbasetemp()}/money.db")
    table = Table("money", MetaData(), Column("usd", schema.Usd))
    with database.write() as connection:
        table.drop(connection, checkfirst=True)
        table.create(connection)
        connection.execute(insert(table), {"usd": amount})
        kept = connection.execute(select(table)).scalar_one()
    assert str(kept) == str(amount)


@pytest.mark.parametrize("amount", ["NaN", "Infinity"])
def test_what_is_not_an_amount_is_not_kept(url: str, amount: str) -> None:
    ledger = Ledger.open(url)
    request = sample_request()
    offer = replace(request.placement.offer, list_usd_per_hour=Decimal(amount))
    request = replace(request, placement=replace(request.placement, offer=offer))
    with pytest.raises(LedgerError, match="not an amount"):
        ledger.grant(request, slots=1, now=NOON)
    ledger.close()


# ---- processes


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(url: str) -> None:
    ledger = Ledger.open(url)
    ledger.grant(sample_request(sample_task("parent")), slots=9, now=NOON)
    child = os.fork()
    if child == 0:
        try:
            ledger.grant(sample_request(sample_task("child")), slots=9, now=NOON)
        except BaseException:  # noqa: BLE001 - the child's only way to say so
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [lease.task.task_id for lease in ledger.open_leases()] == ["parent", "child"]
    ledger.close()
