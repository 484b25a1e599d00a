"""Keep what is believed of spot pools between two looks at them."""

import sqlalchemy as sa
from alembic import op

from spillway.ledger.schema import UtcDateTime

revision = "0005"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "pool_belief",
        sa.Column("pools", sa.String(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("pools", name="pk_pool_belief"),
    )


def downgrade() -> None:
    """Drop the table; beliefs start over from the prior."""
    op.drop_table("pool_belief")
