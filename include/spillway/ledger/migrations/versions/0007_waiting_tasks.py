"""Keep which tasks wait and why, and where a job that is asked to move is to go."""

import sqlalchemy as sa
from alembic import op

from spillway.ledger.schema import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and the column."""
    op.add_column("lease", sa.Column("moving_to", sa.String(), nullable=True))
    op.create_table(
        "waiting",
        sa.Column("dag_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("asks_again_at", UtcDateTime(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "run_id", "task_id", "map_index", name="pk_waiting"),
    )


def downgrade() -> None:
    """Drop both: tasks that wait go on waiting, unseen."""
    op.drop_table("waiting")
    op.drop_column("lease", "moving_to")
