"""Keep what checkpoints take in the store, to charge for it."""

import sqlalchemy as sa
from alembic import op

from spillway.ledger.schema import Token, Usd, UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "storage",
        sa.Column("lease_token", Token, autoincrement=False, nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("gib", sa.Double(), nullable=False),
        sa.Column("usd_per_gib_month", Usd(), nullable=False),
        sa.ForeignKeyConstraint(["lease_token"], ["lease.token"], name="fk_storage_lease_token"),
        sa.PrimaryKeyConstraint("lease_token", "since", name="pk_storage"),
    )


def downgrade() -> None:
    """Drop the table, and every charge for storage with it."""
    op.drop_table("storage")
