"""Begin with leases, placements, cost records and refusals."""

import sqlalchemy as sa
from alembic import op

from spillway.ledger.schema import Token, Usd, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TASK = ["dag_id", "run_id", "task_id", "map_index"]
_OPEN = sa.text("ended_at IS NULL")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "lease",
        sa.Column("token", Token, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("dag_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("market", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_since", UtcDateTime(), nullable=False),
        sa.Column("owner_try", sa.Integer(), nullable=False),
        sa.Column("owner_clear", sa.Integer(), nullable=False),
        sa.Column("granted_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("marginal_usd_per_hour", Usd(), nullable=False),
        sa.Column("effective_usd_per_hour", Usd(), nullable=False),
        sa.Column("list_usd_per_hour", Usd(), nullable=False),
        sa.Column("submission", sa.JSON(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("token", name="pk_lease"),
        sa.UniqueConstraint("key", name="uq_lease_key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_lease_open_task",
        "lease",
        _TASK,
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_index("uq_lease_attempt", "lease", [*_TASK, "number"], unique=True)
    op.create_index(
        "ix_lease_open_pool", "lease", ["pool"], sqlite_where=_OPEN, postgresql_where=_OPEN
    )
    op.create_index("ix_lease_pool_ended", "lease", ["pool", "ended_at"])
    op.create_index("ix_lease_state", "lease", ["state", "state_since"])
    op.create_table(
        "placement",
        sa.Column("lease_token", Token, autoincrement=False, nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["lease_token"], ["lease.token"], name="fk_placement_lease_token"),
        sa.PrimaryKeyConstraint("lease_token", name="pk_placement"),
    )
    op.create_table(
        "cost_record",
        sa.Column("lease_token", Token, autoincrement=False, nullable=False),
        sa.Column("charge_period_start", UtcDateTime(), nullable=False),
        sa.Column("charge_period_end", UtcDateTime(), nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("pricing_category", sa.String(), nullable=False),
        sa.Column("marginal_cost", Usd(), nullable=False),
        sa.Column("effective_cost", Usd(), nullable=False),
        sa.Column("list_cost", Usd(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lease_token"], ["lease.token"], name="fk_cost_record_lease_token"
        ),
        sa.PrimaryKeyConstraint("lease_token", "charge_period_start", name="pk_cost_record"),
    )
    op.create_index("ix_cost_record_period", "cost_record", ["charge_period_start"])
    op.create_table(
        "refusal",
        sa.Column("id", Token, autoincrement=True, nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("refused_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_refusal"),
    )
    op.create_index("ix_refusal_pool", "refusal", ["pool", "refused_at"])


def downgrade() -> None:
    """Drop the tables, and every lease and cost record with them."""
    for table in ("refusal", "cost_record", "placement", "lease"):
        op.drop_table(table)
