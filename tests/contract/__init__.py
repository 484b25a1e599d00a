"""Suites that every store, ledger and backend passes."""
