"""Keep why a job was asked to move, so that it can be explained and made again."""

import sqlalchemy as sa
from alembic import op

from spillway.ledger.schema import Token

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "move",
        sa.Column("lease_token", Token, autoincrement=False, nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["lease_token"], ["lease.token"], name="fk_move_lease_token_lease"),
        sa.PrimaryKeyConstraint("lease_token", name="pk_move"),
    )


def downgrade() -> None:
    """Drop it: moves go on, unexplained."""
    op.drop_table("move")
