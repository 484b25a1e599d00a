"""Who is who in a gang, from environments as the platforms' documents show them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from spillway.errors import SpecError
from spillway.runtime.gang.membership import DEFAULT_PORT, Member, first_host, membership

if TYPE_CHECKING:
    from pathlib import Path

SLURM = {
    "SLURM_JOB_ID": "71",
    "SLURM_PROCID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NNODES": "3",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_JOB_NODELIST": "gpu[03-05]",
    "SLURM_STEP_NODELIST": "gpu[04-05]",
}
KUBERNETES = {
    "JOB_COMPLETION_INDEX": "2",
    "SPILLWAY_GANG_JOB": "spillway-7",
    "SPILLWAY_GANG_SERVICE": "spillway-7.jobs.svc",
}
BATCH_MAIN = {
    "AWS_BATCH_JOB_NODE_INDEX": "0",
    "AWS_BATCH_JOB_NUM_NODES": "2",
    "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
}
BATCH_CHILD = {
    **BATCH_MAIN,
    "AWS_BATCH_JOB_NODE_INDEX": "1",
    "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.7",
}
VERTEX = {
    "CLUSTER_SPEC": json.dumps(
        {
            "cluster": {
                "workerpool0": ["cmle-training-workerpool0-ab-0:2222"],
                "workerpool1": [
                    "cmle-training-workerpool1-ab-0:2222",
                    "cmle-training-workerpool1-ab-1:2222",
                ],
            },
            "environment": "cloud",
            "task": {"type": "workerpool1", "index": 1},
        }
    )
}
TPU = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "tpu-0.svc,tpu-1.svc"}
SAGEMAKER = {"SM_HOSTS": '["algo-1","algo-2"]', "SM_CURRENT_HOST": "algo-2"}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
    "SPILLWAY_GANG_RANK": "1",
    "SPILLWAY_GANG_HEAD": "10.0.0.1",
}


@pytest.mark.parametrize(
    ("environment", "rank", "nodes", "head"),
    [
        ({"SPILLWAY_GANG_RANK": "1", "SPILLWAY_GANG_HEAD": "here"}, 1, 4, "here"),
        (SLURM, 1, 2, "gpu04"),
        (KUBERNETES, 2, 4, "spillway-7-0.spillway-7.jobs.svc"),
        (BATCH_MAIN, 0, 2, "127.0.0.1"),
        (BATCH_CHILD, 1, 2, "10.0.0.7"),
        (VERTEX, 2, 3, "cmle-training-workerpool0-ab-0"),
        (TPU, 1, 2, "tpu-0.svc"),
        (SAGEMAKER, 1, 2, "algo-1"),
        (TORCHRUN, 3, 4, "10.0.0.1"),
    ],
)
def test_each_platform_says_who_is_who(
    environment: dict[str, str], rank: int, nodes: int, head: str
) -> None:
    member = membership(environment, nodes=4)
    assert member is not None
    assert (member.rank, member.nodes, member.head_address) == (rank, nodes, head)
    assert member.port == DEFAULT_PORT


def test_google_batch_counts_by_its_file_of_hosts(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.5\n10.0.0.6\n10.0.0.9\n")
    environment = {"BATCH_HOSTS_FILE": str(hosts), "BATCH_TASK_INDEX": "1"}
    named = membership(environment, nodes=3, own_addresses=frozenset({"10.0.0.9", "me"}))
    assert named is not None
    assert (named.rank, named.nodes, named.head_address) == (2, 3, "10.0.0.5")
    unnamed = membership(environment, nodes=3)
    assert unnamed is not None
    assert unnamed.rank == 1


def test_what_is_explicit_comes_before_what_the_platform_says() -> None:
    explicit = {
        "SPILLWAY_GANG_RANK": "0",
        "SPILLWAY_GANG_NODES": "5",
        "SPILLWAY_GANG_HEAD": "first",
        "SPILLWAY_GANG_PORT": "4000",
    }
    assert membership({**SLURM, **explicit}, nodes=2) == Member(
        rank=0, nodes=5, head_address="first", port=4000, source="SPILLWAY_GANG_RANK"
    )


@pytest.mark.parametrize(
    "environment", [{}, {"SLURM_JOB_ID": "3"}, {**SLURM, "SLURM_STEP_NUM_NODES": "1"}]
)
def test_a_machine_alone_belongs_to_no_gang(environment: dict[str, str]) -> None:
    assert membership(environment, nodes=1) is None


@pytest.mark.parametrize(
    "environment",
    [
        {"SPILLWAY_GANG_RANK": "four", "SPILLWAY_GANG_HEAD": "here"},
        {"SPILLWAY_GANG_RANK": "4", "SPILLWAY_GANG_HEAD": "here"},
        {"CLUSTER_SPEC": "{}"},
        {"SM_HOSTS": '["algo-1"]'},
        {"BATCH_HOSTS_FILE": "/nowhere/at/all"},
    ],
)
def test_what_makes_no_sense_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(SpecError, match=r"gang|member"):
        membership(environment, nodes=4)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("login", "login"),
        ("a,b", "a"),
        ("gpu[03-05]", "gpu03"),
        ("gpu[7,9-11],x1", "gpu7"),
        ("r[1-2]n,q", "r1n"),
    ],
)
def test_the_first_host_of_a_slurm_list(names: str, first: str) -> None:
    assert first_host(names) == first
