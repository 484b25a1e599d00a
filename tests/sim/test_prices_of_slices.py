"""A price history of whole machines, and pools of the slices that they are divided into."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from sim.sim_worlds import START, job, scenario
from spillway.catalog.pools_file import load_pools
from spillway.sim.engine import simulate
from spillway.sim.price_files import read_prices
from spillway.sim.strategies import CheapestPerHour

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.model import Pool

ENTRY = """\
  - name: {name}
    backend: local
    market: spot
    slots: 1
    shape: {{cpus: 8, memory_gib: 80, accelerator: H100, accelerator_count: 1, {part}}}
    list_usd_per_hour: {usd}
    preemptions_per_hour: 0
"""
BY_MACHINE = """\
at,instance_type,zone,usd_per_hour
2026-10-01T00:00Z,one-h100,us-east-1a,2.80
2026-10-02T00:00Z,one-h100,us-east-1a,1.40
"""
BY_POOL = """\
at,pool,usd_per_hour
2026-10-01T00:00Z,slices,2.80
2026-10-01T00:00Z,rented,0.40
"""


@pytest.fixture
def pools(tmp_path: Path) -> tuple[Pool, ...]:
    """The slices that a whole H100 is divided into, and one that somebody rents as such."""
    text = "pools:\n"
    text += ENTRY.format(name="slices", part="mig_profile: 1g.20gb", usd=4)
    text += ENTRY.format(name="rented", part="accelerator_fraction: 0.25", usd=1)
    (tmp_path / "pools.yaml").write_text(text)
    return load_pools(tmp_path / "pools.yaml")


def test_a_slice_costs_its_part_of_the_machine_at_every_time(
    tmp_path: Path, pools: tuple[Pool, ...]
) -> None:
    (tmp_path / "prices.csv").write_text(BY_MACHINE)
    followed = {"slices": "one-h100/us-east-1a"}
    changes = read_prices([tmp_path / "prices.csv"], pools, followed, START)
    assert [(one.at - START, one.usd_per_hour) for one in changes] == [
        (timedelta(0), Decimal("0.7")),
        (timedelta(days=1), Decimal("0.35")),
    ]
    late = job("late", 2, at=timedelta(days=2))
    month = scenario(pools[0], jobs=[late], prices=changes)
    (attempt,) = simulate(month, CheapestPerHour()).attempts
    assert attempt.list_usd_per_hour == Decimal("0.35")


def test_a_history_of_a_pool_says_what_the_pools_file_would(
    tmp_path: Path, pools: tuple[Pool, ...]
) -> None:
    (tmp_path / "prices.csv").write_text(BY_POOL)
    changes = read_prices([tmp_path / "prices.csv"], pools, {}, START)
    assert {one.pool: one.usd_per_hour for one in changes} == {
        "slices": Decimal("0.7"),
        "rented": Decimal("0.4"),
    }
