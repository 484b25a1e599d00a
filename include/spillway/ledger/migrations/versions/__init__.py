"""One file a migration; the newest is named in `spillway.ledger.migrate.HEAD`."""
