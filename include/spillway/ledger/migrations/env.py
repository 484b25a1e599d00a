"""Alembic's entry: runs the migrations on the connection, and in the transaction, that `migrate.py` opened."""

from alembic import context

from spillway.ledger.migrate import VERSION_TABLE
from spillway.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
