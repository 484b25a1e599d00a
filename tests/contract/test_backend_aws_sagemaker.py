"""The contract of backends on SageMaker, spoken over the wire to a service that runs its jobs on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract.aws_world import SageMakerWorld
from spillway.testing.aws_market import aws_market
from spillway.testing.backend_suite import BackendContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from spillway.testing.aws_market import AwsMarket


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMarket]:
    with aws_market(tmp_path_factory.mktemp("aws")) as market:
        yield market


class TestSageMaker(BackendContract):
    @pytest.fixture
    def world(self, market: AwsMarket, tmp_path: Path) -> Iterator[SageMakerWorld]:
        world = SageMakerWorld(market, tmp_path)
        yield world
        world.release_all()
