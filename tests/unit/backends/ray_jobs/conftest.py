from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from spillway.model import Market, Pool, Resources, Submission

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def pool() -> Callable[..., Pool]:
    """Returns a pool with the given options."""

    def of(**options: Any) -> Pool:
        return Pool(
            name="cluster",
            backend="ray",
            market=Market.PARTNER,
            slots=2,
            shape=Resources(),
            list_usd_per_hour=Decimal(1),
            options=options,
        )

    return of


@pytest.fixture
def submission() -> Callable[..., Submission]:
    """Returns a submission with the given facts."""

    def of(**facts: Any) -> Submission:
        values: dict[str, Any] = {
            "key": "dag/manual__2026-01-01T00:00:00+00:00/train/-1/1",
            "pool": "cluster",
            "token": 1,
            "entry_point": "jobs:train",
            "arguments": {},
            "resources": Resources(),
            "store": "s3://checkpoints/runs",
            "prefix": "task",
            "grace_period": timedelta(seconds=20),
        }
        return Submission(**{**values, **facts})

    return of
