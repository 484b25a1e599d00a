"""Fixtures that several folders share: servers that tests start for themselves."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from spillway.testing.postgres import find_postgres, fresh_database, postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator


# The same examples each time. How long one takes says more about who else uses the machine; pytest-timeout watches for what hangs.
settings.register_profile("spillway", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("spillway")


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
