from __future__ import annotations

import pytest

from spillway.testing.ledger_suite import LedgerContract


@pytest.mark.postgres
class TestLedgerOnPostgres(LedgerContract):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url
