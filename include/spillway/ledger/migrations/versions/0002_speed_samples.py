"""Keep how fast leases worked."""

import sqlalchemy as sa
from alembic import op

from spillway.ledger.schema import Token, UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "speed_sample",
        sa.Column("lease_token", Token, autoincrement=False, nullable=False),
        sa.Column("workload", sa.String(), nullable=False),
        sa.Column("accelerator", sa.String(), nullable=True),
        sa.Column("accelerator_count", sa.Integer(), nullable=False),
        sa.Column("speed", sa.Double(), nullable=False),
        sa.Column("hours", sa.Double(), nullable=False),
        sa.Column("measured_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lease_token"], ["lease.token"], name="fk_speed_sample_lease_token"
        ),
        sa.PrimaryKeyConstraint("lease_token", name="pk_speed_sample"),
    )
    op.create_index("ix_speed_sample_workload", "speed_sample", ["workload", "measured_at"])


def downgrade() -> None:
    """Drop the table; speeds are learned anew."""
    op.drop_table("speed_sample")
