"""Let a lease hold several slots."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; each lease that there is holds one."""
    op.add_column("lease", sa.Column("slots", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    """Drop the column, and with it how much a gang holds: end the gangs first."""
    op.drop_column("lease", "slots")
