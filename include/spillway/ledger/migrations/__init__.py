"""The ledger's one Alembic history, for SQLite and PostgreSQL alike."""
