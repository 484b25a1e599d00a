"""What a submission becomes at Cloud TPU, which options there are, and what answers mean."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from spillway.backends.google.tpu.options import read_tpu_options
from spillway.backends.google.tpu.parse import TpuRow, exit_codes, observation
from spillway.backends.google.tpu.render import queued_resource, startup_script
from spillway.errors import SpecError
from spillway.model import JobEvent, Market, Pool, Resources, Submission
from spillway.model.codec import decode_json

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE: dict[str, Any] = {
    "region": "us-east5",
    "zone": "us-east5-a",
    "image": "docker.io/acme/jobs:1",
    "slices": {"1": "v5p-8", "4": "v5p-32"},
    "runtime_version": "v2-alpha-tpuv5",
}
SUBMISSION = Submission(
    key="dag/run/train/-1/1",
    pool="v5p",
    token=7,
    entry_point="jobs:train",
    arguments={"text": "'$(exit 9)"},
    resources=Resources(accelerator="TPU v5p", accelerator_count=4),
    store="gs://checkpoints",
    prefix="p",
    grace_period=timedelta(seconds=30),
)


def pool(market: Market = Market.SPOT, **options: Any) -> Pool:
    return Pool(
        name="v5p",
        backend="google_tpu",
        market=market,
        slots=4,
        shape=Resources(),
        list_usd_per_hour=Decimal(17),
        options={**BASE, **options},
    )


def sent(market: Market = Market.SPOT, nodes: int = 1, **options: Any) -> dict[str, Any]:
    settled = read_tpu_options(pool(market, **options))
    gang = replace(SUBMISSION, nodes=nodes)
    return queued_resource(gang, settled, "projects/p/locations/z", spot=market is Market.SPOT)


def test_the_market_says_in_which_queue_it_waits() -> None:
    assert "spot" in sent()
    reserved = sent(Market.RESERVED, reservation="projects/p/locations/z/reservations/r")
    assert reserved["guaranteed"] == {}
    assert reserved["tpu"]["nodeSpec"][0]["node"]["schedulingConfig"] == {"reserved": True}
    assert "spot" not in reserved
    assert not {"spot", "guaranteed", "queueingPolicy"} & sent(Market.ON_DEMAND).keys()
    waits = sent(wait_at_most="PT6H")
    assert waits["queueingPolicy"] == {"validUntilDuration": "21600s"}


@pytest.mark.parametrize(
    ("slices", "version", "expected"),
    [
        ({"1": "v5p-8", "4": "v5p-32"}, "v2-alpha-tpuv5", "v5p-32"),
        ({"1": "v6e-4", "4": "v6e-16"}, "v2-alpha-tpuv6e", "v6e-16"),
    ],
)
def test_a_gang_is_a_slice_of_as_many_hosts(
    slices: dict[str, str], version: str, expected: str
) -> None:
    own = {"slices": slices, "runtime_version": version, "labels": {"team": "a"}}
    (spec,) = sent(nodes=4, service_account="jobs@p", **own)["tpu"]["nodeSpec"]
    node = spec["node"]
    assert (node["acceleratorType"], node["runtimeVersion"]) == (expected, version)
    assert node["serviceAccount"]["email"] == "jobs@p"
    assert node["labels"]["team"] == "a"
    gang = decode_json(node["metadata"]["spillway-submission"], Submission)
    assert gang == replace(SUBMISSION, nodes=4)


def test_the_script_is_shell_and_has_nothing_of_the_task_in_it() -> None:
    script = startup_script(SUBMISSION, read_tpu_options(pool()))
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "exit 9" not in script


@pytest.mark.parametrize(
    ("market", "options", "words"),
    [
        (Market.SPOT, {"reservation": "r"}, "option reservation"),
        (Market.RESERVED, {}, "option reservation"),
        (Market.SPOT, {"slices": {}}, "option slices"),
        (Market.SPOT, {"slices": {"0": "v5p-8"}}, "option slices"),
        (Market.SPOT, {"zone": None}, "option zone"),
        (Market.SPOT, {"environment": {"A": "one\ntwo"}}, "option environment"),
    ],
)
def test_a_mistake_names_the_pool_and_the_option(
    market: Market, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=f"pool 'v5p'.*{words}"):
        read_tpu_options(pool(market, **options))


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (125, "option image or container_options"),
        (126, "option python"),
        (127, "option python"),
        (137, "raise memory_gib"),
    ],
)
def test_how_a_container_ended_tells_what_to_do(code: int, named: str) -> None:
    row = TpuRow(name="x", key=None, state="ACTIVE", accelerator_type="v5p-8", created_at=NOW)
    seen = observation(row, NOW, codes=(0, code), hosts=4, start_within=None)
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, code)
    assert f"exit code {code}" in seen.detail
    assert named in seen.detail


def test_hosts_that_have_left_nothing_run() -> None:
    assert exit_codes({}) == ()
    assert exit_codes({"guestAttributes": [{"queryPath": "spillway/"}, {"queryValue": {}}]}) == ()
