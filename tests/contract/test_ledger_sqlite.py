from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spillway.testing.ledger_suite import LedgerContract

if TYPE_CHECKING:
    from pathlib import Path


class TestLedgerOnSqlite(LedgerContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/made/on/opening/ledger.db"
