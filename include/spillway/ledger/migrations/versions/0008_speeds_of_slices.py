"""Tell speeds in a slice of an accelerator from those on a whole one."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and fill it from the offers that the leases came from."""
    op.add_column(
        "speed_sample",
        sa.Column("accelerator_fraction", sa.Double(), nullable=False, server_default="1"),
    )
    sample = sa.table(
        "speed_sample", sa.column("lease_token"), sa.column("accelerator_fraction", sa.Double())
    )
    placement = sa.table("placement", sa.column("lease_token"), sa.column("document", sa.JSON()))
    taken = placement.c.document["offer"]["shape"]["accelerator_fraction"].as_float()
    of_lease = sa.select(taken).where(placement.c.lease_token == sample.c.lease_token)
    op.execute(
        sample.update().values(
            accelerator_fraction=sa.func.coalesce(of_lease.scalar_subquery(), 1.0)
        )
    )


def downgrade() -> None:
    """Drop the column: what slices showed is then taken for what whole ones do."""
    op.drop_column("speed_sample", "accelerator_fraction")
