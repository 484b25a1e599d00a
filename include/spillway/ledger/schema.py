"""The ledger's tables, and the column types that make money exact and instants aware on every database."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware on the way in, UTC in the database, aware UTC on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return `value` as the database keeps it; SQLite keeps text without an offset."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the ledger keeps aware instants only, {value!r} has no time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return what the database kept as an aware UTC instant."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Usd(TypeDecorator[Decimal]):
    """US dollars, exact: NUMERIC without a bound, or text on SQLite, whose numbers are floats.

    Sum and compare it in Python only; text has another order than the number it spells.
    """

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column type of `dialect`."""
        return dialect.type_descriptor(String() if dialect.name == "sqlite" else Numeric())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """Return `value` as the database keeps it."""
        if value is None:
            return None
        if not value.is_finite():
            raise ValueError(f"{value} is not an amount of money")
        return str(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        """Return the amount with every digit it was given."""
        return None if value is None else Decimal(value)


# SQLite counts up without ever reusing a number only in a column it calls INTEGER.
Token = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

lease = Table(
    "lease",
    metadata,
    Column("token", Token, primary_key=True, autoincrement=True),
    Column("key", String, nullable=False),
    Column("dag_id", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("task_id", String, nullable=False),
    Column("map_index", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("pool", String, nullable=False),
    Column("backend", String, nullable=False),
    Column("market", String, nullable=False),
    Column("state", String, nullable=False),
    Column("state_since", UtcDateTime, nullable=False),
    Column("owner_try", Integer, nullable=False),
    Column("owner_clear", Integer, nullable=False),
    Column("granted_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("marginal_usd_per_hour", Usd, nullable=False),
    Column("effective_usd_per_hour", Usd, nullable=False),
    Column("list_usd_per_hour", Usd, nullable=False),
    Column("submission", JSON, nullable=False),
    Column("provider_id", String),
    Column("exit_code", Integer),
    Column("detail", Text, nullable=False),
    Column("slots", Integer, nullable=False, server_default="1"),
    Column("moving_to", String),
    UniqueConstraint("key", name="uq_lease_key"),
    sqlite_autoincrement=True,
)
is_open = lease.c.ended_at.is_(None)

# What holds whatever the code above it does: one open lease a task instance, one lease a number.
_task = (lease.c.dag_id, lease.c.run_id, lease.c.task_id, lease.c.map_index)
Index("uq_lease_open_task", *_task, unique=True, sqlite_where=is_open, postgresql_where=is_open)
Index("uq_lease_attempt", *_task, lease.c.number, unique=True)
Index("ix_lease_open_pool", lease.c.pool, sqlite_where=is_open, postgresql_where=is_open)
Index("ix_lease_pool_ended", lease.c.pool, lease.c.ended_at)
Index("ix_lease_state", lease.c.state, lease.c.state_since)

placement = Table(
    "placement",
    metadata,
    Column("lease_token", Token, ForeignKey("lease.token"), primary_key=True, autoincrement=False),
    Column("document", JSON, nullable=False),
)

move = Table(
    "move",
    metadata,
    Column("lease_token", Token, ForeignKey("lease.token"), primary_key=True, autoincrement=False),
    Column("document", JSON, nullable=False),
)

cost_record = Table(
    "cost_record",
    metadata,
    Column("lease_token", Token, ForeignKey("lease.token"), primary_key=True, autoincrement=False),
    Column("charge_period_start", UtcDateTime, primary_key=True),
    Column("charge_period_end", UtcDateTime, nullable=False),
    Column("pool", String, nullable=False),
    Column("pricing_category", String, nullable=False),
    Column("marginal_cost", Usd, nullable=False),
    Column("effective_cost", Usd, nullable=False),
    Column("list_cost", Usd, nullable=False),
)
Index("ix_cost_record_period", cost_record.c.charge_period_start)

refusal = Table(
    "refusal",
    metadata,
    Column("id", Token, primary_key=True, autoincrement=True),
    Column("pool", String, nullable=False),
    Column("refused_at", UtcDateTime, nullable=False),
)
Index("ix_refusal_pool", refusal.c.pool, refusal.c.refused_at)

speed_sample = Table(
    "speed_sample",
    metadata,
    Column("lease_token", Token, ForeignKey("lease.token"), primary_key=True, autoincrement=False),
    Column("workload", String, nullable=False),
    Column("accelerator", String),
    Column("accelerator_count", Integer, nullable=False),
    Column("speed", Double, nullable=False),
    Column("hours", Double, nullable=False),
    Column("measured_at", UtcDateTime, nullable=False),
    Column("accelerator_fraction", Double, nullable=False, server_default="1"),
)
Index("ix_speed_sample_workload", speed_sample.c.workload, speed_sample.c.measured_at)

storage = Table(
    "storage",
    metadata,
    Column("lease_token", Token, ForeignKey("lease.token"), primary_key=True, autoincrement=False),
    Column("since", UtcDateTime, primary_key=True),
    Column("gib", Double, nullable=False),
    Column("usd_per_gib_month", Usd, nullable=False),
)

waiting = Table(
    "waiting",
    metadata,
    Column("dag_id", String, primary_key=True),
    Column("run_id", String, primary_key=True),
    Column("task_id", String, primary_key=True),
    Column("map_index", Integer, primary_key=True, autoincrement=False),
    Column("since", UtcDateTime, nullable=False),
    Column("asks_again_at", UtcDateTime, nullable=False),
    Column("document", JSON, nullable=False),
)

pool_belief = Table(
    "pool_belief",
    metadata,
    Column("pools", String, primary_key=True),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("document", JSON, nullable=False),
)
