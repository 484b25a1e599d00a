"""A deployment of a cloud's pool and a dearer one beside it, for what follows on a cloud's answers."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from spillway.dispatch import Running
from spillway.testing.fake_deployment import ON_DEMAND, FakeDeployment, running

if TYPE_CHECKING:
    from pathlib import Path

    from contract.aws_world import AwsWorld
    from contract.google_world import GoogleWorld
    from spillway.backends.protocol import Backend
    from spillway.model import Pool


class BesideCloud(FakeDeployment):
    """A pool of `cloud`, and a provider in memory that always has room and costs more."""

    def __init__(self, folder: Path, cloud: AwsWorld | GoogleWorld) -> None:
        self._cloud = cloud
        cheap = replace(cloud.pool(), list_usd_per_hour=Decimal("0.10"))
        super().__init__(folder, pools=(cheap, replace(ON_DEMAND, slots=9)))

    def _backend_of(self, pool: Pool) -> Backend:
        if pool.name == self._cloud.name:
            backend: Backend = self._cloud.connect(clock=self.clock)
            return backend
        return super()._backend_of(pool)


def places_after_a_stockout(deployment: BesideCloud) -> list[str]:
    """Return the pools on which a task is placed until one starts it, and then that of the next task."""
    request = deployment.request()
    lease = running(deployment.dispatcher.begin(request))
    pools = [lease.pool]
    while lease.pool != ON_DEMAND.name:
        step = deployment.dispatcher.advance(request, lease.key)
        assert isinstance(step, Running)
        if step.lease.key != lease.key:
            pools.append(step.lease.pool)
        lease = step.lease
    pools.append(running(deployment.dispatcher.begin(deployment.request("next"))).pool)
    return pools
