"""What a submission becomes at Google Cloud Batch, which options there are, and what names look like."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google.cloud import batch_v1
from hypothesis import given
from hypothesis import strategies as st

from spillway.backends.google import naming
from spillway.backends.google.access import access
from spillway.backends.google.batch.options import read_batch_options
from spillway.backends.google.batch.parse import EVENTS, JobRow, observation
from spillway.backends.google.batch.render import create_request
from spillway.backends.protocol import Connection
from spillway.backends.registry import load
from spillway.errors import RejectedError, SpecError
from spillway.model import JobEvent, Market, Pool, Resources, Submission
from spillway.model.codec import decode_json

REGION = {"region": "us-central1", "image": "docker.io/acme/jobs:1"}
H100 = Resources(cpus=208, memory_gib=1800, accelerator="H100", accelerator_count=8)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pool(market: Market = Market.SPOT, **options: Any) -> Pool:
    return Pool(
        name="a3",
        backend="google_batch",
        market=market,
        slots=2,
        shape=H100,
        list_usd_per_hour=Decimal(88),
        options={**REGION, **options},
    )


def submission(**changes: Any) -> Submission:
    base = Submission(
        key="dag/run/train/-1/1",
        pool="a3",
        token=7,
        entry_point="jobs:train",
        arguments={},
        resources=H100,
        store="gs://checkpoints",
        prefix="p",
        grace_period=timedelta(seconds=30),
    )
    return replace(base, **changes)


def request(job: Submission, market: Market = Market.SPOT, **options: Any) -> Any:
    settled = read_batch_options(pool(market, **options))
    return create_request(job, settled, "projects/p/locations/us-central1")


def test_a_spot_pool_asks_for_spot_machines_and_no_second_try() -> None:
    sent = request(submission(), machine_type="a3-highgpu-8g", zones=["us-central1-a"])
    instances = sent.job.allocation_policy.instances[0]
    assert instances.policy.provisioning_model.name == "SPOT"
    assert instances.policy.machine_type == "a3-highgpu-8g"
    assert instances.install_gpu_drivers
    assert list(sent.job.allocation_policy.location.allowed_locations) == ["zones/us-central1-a"]
    task = sent.job.task_groups[0].task_spec
    assert task.max_retry_count == 0
    assert list(task.lifecycle_policies) == []
    assert task.compute_resource.cpu_milli == 208_000
    assert (
        decode_json(task.environment.variables["SPILLWAY_SUBMISSION"], Submission) == submission()
    )


def test_a_gang_has_a_task_for_each_node_and_a_list_of_them() -> None:
    group = request(submission(nodes=4)).job.task_groups[0]
    assert (group.task_count, group.parallelism, group.task_count_per_node) == (4, 4, 1)
    assert group.require_hosts_file
    assert group.permissive_ssh
    container = group.task_spec.runnables[0].container
    assert container.options == "--network=host"
    assert len(container.volumes) == 1


@pytest.mark.parametrize(
    ("market", "options", "model", "reservation"),
    [
        (Market.ON_DEMAND, {}, "STANDARD", ""),
        (Market.RESERVED, {"reservation": "ours"}, "STANDARD", "ours"),
        (
            Market.RESERVED,
            {"reservation": "ours", "provisioning": "RESERVATION_BOUND"},
            "RESERVATION_BOUND",
            "ours",
        ),
        (Market.ON_DEMAND, {"provisioning": "FLEX_START", "max_run": "P7D"}, "FLEX_START", ""),
    ],
)
def test_the_market_says_how_machines_are_bought(
    market: Market, options: dict[str, Any], model: str, reservation: str
) -> None:
    policy = request(submission(), market, **options).job.allocation_policy.instances[0].policy
    assert (policy.provisioning_model.name, policy.reservation) == (model, reservation)


def test_what_the_options_say_is_asked_for() -> None:
    job = request(
        submission(),
        labels={"team": "search"},
        service_account="jobs@p.iam.gserviceaccount.com",
        network="projects/p/global/networks/ours",
        subnetwork="projects/p/regions/us-central1/subnetworks/ours",
        external_ip=False,
        boot_disk_gib=200,
        boot_image="batch-cos",
        accelerator_type="nvidia-tesla-t4",
        secrets={"HF_TOKEN": "projects/p/secrets/hf/versions/1"},
        max_run="PT2H",
        container_options="--shm-size=64g",
    ).job
    assert job.labels["team"] == job.allocation_policy.labels["team"] == "search"
    assert job.allocation_policy.service_account.email.startswith("jobs@")
    (interface,) = job.allocation_policy.network.network_interfaces
    assert interface.no_external_ip_address
    policy = job.allocation_policy.instances[0].policy
    assert (policy.boot_disk.size_gb, policy.accelerators[0].count) == (200, 8)
    task = job.task_groups[0].task_spec
    assert task.max_run_duration == timedelta(hours=2)
    assert task.environment.secret_variables["HF_TOKEN"].endswith("/1")
    assert task.runnables[0].container.options == "--shm-size=64g"


@pytest.mark.parametrize(
    ("market", "options", "words"),
    [
        (Market.SPOT, {"reservation": "ours"}, "option reservation"),
        (Market.SPOT, {"provisioning": "STANDARD"}, "option provisioning"),
        (Market.ON_DEMAND, {"provisioning": "SPOT"}, "option provisioning"),
        (Market.ON_DEMAND, {"provisioning": "FLEX_START"}, "option max_run"),
        (Market.RESERVED, {}, "option reservation"),
        (Market.SPOT, {"region": None}, "option region"),
        (Market.SPOT, {"image": "two words"}, "option image"),
        (Market.SPOT, {"machine": "a3"}, "option machine"),
        (Market.SPOT, {"labels": {"Team": "x"}}, "option labels"),
        (Market.SPOT, {"labels": {"spillway_pool": "x"}}, "option labels"),
        (Market.SPOT, {"secrets": {"A": "hunter2"}}, "option secrets"),
        (Market.SPOT, {"environment": {"1A": "x"}}, "option environment"),
    ],
)
def test_a_mistake_names_the_pool_and_the_option(
    market: Market, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=f"pool 'a3'.*{words}"):
        read_batch_options(pool(market, **options))


def test_a_submission_that_does_not_fit_is_refused() -> None:
    with pytest.raises(RejectedError, match="100000 are allowed"):
        request(submission(arguments={"text": "x" * 100_001}))


@given(st.text(max_size=400), st.text(max_size=80))
def test_ids_and_labels_keep_to_googles_rules(key: str, name: str) -> None:
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", naming.job_id(name, key))
    for label, value in naming.labels(name, key).items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}", f"{label}={value}")


@given(st.lists(st.text(max_size=40), unique=True, min_size=2, max_size=2))
def test_no_two_keys_are_alike(keys: list[str]) -> None:
    for name in (naming.job_id, naming.request_id):
        assert name("a3", keys[0]) != name("a3", keys[1])
        assert name(keys[0], "k") != name(keys[1], "k")


def test_every_state_of_the_library_has_its_row() -> None:
    assert {state.name for state in batch_v1.JobStatus.State} == EVENTS.keys()


def seen(**facts: Any) -> Any:
    row = JobRow(name="sw-1", uid="u", key="k", nodes=1, created_at=NOW, **facts)
    return observation(row, NOW, start_within=None, waits_for_capacity=False)


def test_a_state_that_we_do_not_know_is_not_guessed() -> None:
    assert seen(state="HIBERNATING").event is None


def test_what_a_gang_ends_with_after_a_preemption_is_its_consequence() -> None:
    assert seen(state="FAILED", exit_codes=(1, 50001)).event is JobEvent.PREEMPTED


def test_a_failure_before_any_machine_says_what_to_correct() -> None:
    one = seen(state="FAILED", said=("Batch Error: code - CODE_MACHINE_TYPE_NOT_FOUND",))
    assert one.event is JobEvent.FAILED
    assert "machine_type" in one.detail


def test_a_pool_without_a_connection_of_googles_type_is_a_mistake() -> None:
    with pytest.raises(SpecError, match="google_cloud_platform"):
        load(pool(), home=Path(), connection=Connection(password="x"))
    with pytest.raises(SpecError, match="option project"):
        access("pool", None, Connection(client=(object(), None)))


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
    row = JobRow(
        name="x", uid="x", key=None, state="FAILED", nodes=1, created_at=NOW, exit_codes=(code,)
    )
    seen = observation(row, NOW, start_within=None, waits_for_capacity=False)
    assert (seen.event, seen.exit_code) == (JobEvent.FAILED, code)
    assert named in seen.detail
