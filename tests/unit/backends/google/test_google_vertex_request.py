"""What a submission becomes at Vertex AI, and which options there are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.cloud import aiplatform_v1

from spillway.backends.google import naming
from spillway.backends.google.vertex.options import read_vertex_options
from spillway.backends.google.vertex.parse import EVENTS
from spillway.backends.google.vertex.render import custom_job
from spillway.errors import SpecError
from spillway.model import Market, Pool, Resources, Submission

BASE = {
    "region": "us-central1",
    "image": "docker.io/acme/jobs:1",
    "machine_type": "a3-highgpu-8g",
    "accelerator_type": "NVIDIA_H100_80GB",
}
H100 = Resources(cpus=208, memory_gib=1800, accelerator="H100", accelerator_count=8)
SUBMISSION = Submission(
    key="dag/run/train/-1/1",
    pool="vertex",
    token=7,
    entry_point="jobs:train",
    arguments={},
    resources=H100,
    store="gs://checkpoints",
    prefix="p",
    grace_period=timedelta(seconds=30),
)


def pool(market: Market = Market.SPOT, **options: Any) -> Pool:
    return Pool(
        name="vertex",
        backend="google_vertex",
        market=market,
        slots=2,
        shape=H100,
        list_usd_per_hour=Decimal(88),
        options={**BASE, **options},
    )


def sent(market: Market = Market.SPOT, nodes: int = 1, **options: Any) -> Any:
    settled = read_vertex_options(pool(market, **options))
    return custom_job(replace(SUBMISSION, nodes=nodes), settled)


@pytest.mark.parametrize(
    ("market", "options", "strategy"),
    [
        (Market.SPOT, {}, "SPOT"),
        (Market.ON_DEMAND, {}, "STANDARD"),
        (Market.RESERVED, {"reservation": "projects/p/zones/z/reservations/r"}, "STANDARD"),
        (Market.ON_DEMAND, {"strategy": "FLEX_START", "max_wait": "PT2H"}, "FLEX_START"),
    ],
)
def test_the_market_says_how_machines_are_bought(
    market: Market, options: dict[str, Any], strategy: str
) -> None:
    spec = sent(market, **options).job_spec
    assert spec.scheduling.strategy.name == strategy
    assert spec.scheduling.disable_retries
    affinity = spec.worker_pool_specs[0].machine_spec.reservation_affinity
    assert list(affinity.values) == [
        value for name, value in options.items() if name == "reservation"
    ]


def test_a_gang_is_one_machine_and_the_others() -> None:
    pools = sent(nodes=4, boot_disk_gib=500).job_spec.worker_pool_specs
    assert [one.replica_count for one in pools] == [1, 3]
    assert {one.machine_spec.accelerator_count for one in pools} == {8}
    assert pools[0].disk_spec.boot_disk_size_gb == 500


def test_labels_tell_pool_key_and_team() -> None:
    labels = dict(sent(labels={"team": "search"}).labels)
    assert labels == {
        "team": "search",
        naming.POOL_LABEL: naming.pool_value(SUBMISSION.pool),
        naming.KEY_LABEL: naming.key_value(SUBMISSION.key),
    }


@pytest.mark.parametrize(
    ("market", "options", "words"),
    [
        (Market.SPOT, {"strategy": "STANDARD"}, "option strategy"),
        (Market.RESERVED, {}, "option reservation"),
        (Market.SPOT, {"reservation": "r"}, "option reservation"),
        (Market.SPOT, {"max_wait": "PT1H"}, "option max_wait"),
        (Market.SPOT, {"accelerator_type": None}, "option accelerator_type"),
        (Market.SPOT, {"accelerator_type": "H100"}, "option accelerator_type.*NVIDIA_H100_80GB"),
        (Market.SPOT, {"machine_type": None}, "option machine_type"),
    ],
)
def test_a_mistake_names_the_pool_and_the_option(
    market: Market, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=f"pool 'vertex'.*{words}"):
        read_vertex_options(pool(market, **options))


def test_every_state_of_the_library_has_its_row() -> None:
    assert {state.name for state in aiplatform_v1.JobState} == EVENTS.keys()
