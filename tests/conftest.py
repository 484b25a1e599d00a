"""Fixtures that several folders share: servers that tests start for themselves."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from spillway.testing.postgres import find_postgres, fresh_database, postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator


HERE = Path(__file__).parent

# The same examples each time. How long one takes says more about who else uses the machine; pytest-timeout watches for what hangs.
settings.register_profile("spillway", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("spillway")


_LONGEST_FIRST = ("e2e", "unit/workloads", "unit/runtime", "contract")
"""Folders whose tests take long: begun late, they would keep one core busy while the other has nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: _place(item.path))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Keep tests that share servers in one process, where pytest runs in several."""
    return _ByServers(config, log)


class _ByServers(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0])
        if path.parent.name == "e2e":
            return "demo" if path.stem.startswith("test_demo") else "e2e"
        return "stores" if path.stem.startswith("test_store_") else str(path)


def _place(path: Path) -> int:
    folder = path.parent.relative_to(HERE).as_posix()
    ranks = (
        rank for rank, first in enumerate(_LONGEST_FIRST) if f"{folder}/".startswith(f"{first}/")
    )
    return next(ranks, len(_LONGEST_FIRST))


def require(condition: object, what: str) -> None:
    """Skip the test when `condition` does not hold, or fail it where everything has to be shown.

    Args:
        what: What is missing and how to get it.
    """
    if condition:
        return
    if os.environ.get("SPILLWAY_REQUIRE_ALL") == "1":
        pytest.fail(f"SPILLWAY_REQUIRE_ALL=1, but {what}")
    pytest.skip(what)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of this session's own."""
    binaries = find_postgres()
    require(binaries, "no PostgreSQL server is installed: apt-get install postgresql")
    assert binaries is not None
    with postgres_server(binaries) as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    with fresh_database(postgres, f"test_{uuid.uuid4().hex}") as url:
        yield url
