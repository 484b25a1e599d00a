"""Which member of its gang this process is: read from what the platform put into the environment, by one table.

What is explicit comes first. A platform whose variables are there only in part is passed over, never guessed at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spillway.errors import SpecError
from spillway.model import Launcher, Submission
from spillway.runtime.variables import port

Environment = Mapping[str, str]

DEFAULT_PORT: Final = 29477
"""Where the first member listens unless `SPILLWAY_GANG_PORT` says otherwise; `torchrun` and Ray take the port after it."""

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One machine of a gang, or one process of `torchrun`'s.

    Attributes:
        rank: From 0; member 0 is the head, where the others meet.
        nodes: How many members there are.
        head_address: Name or address of the head.
        port: Where the head listens.
        source: What said so, for people.
    """

    rank: int
    nodes: int
    head_address: str
    port: int = DEFAULT_PORT
    source: str = "explicit"

    @property
    def is_head(self) -> bool:
        """Whether this is the member where the others meet."""
        return self.rank == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What one platform says: which member, of how many, and where the head is."""

    rank: int
    nodes: int
    head: str


def membership(
    environment: Environment, *, nodes: int, own_addresses: frozenset[str] = frozenset()
) -> Member | None:
    """Return which of `nodes` members this process is; None where nothing in the environment tells.

    Args:
        environment: The variables of this process.
        nodes: How many there are, for platforms that do not say.
        own_addresses: Names and addresses of this machine, for platforms that only list all of them.

    Raises:
        SpecError: A variable has a value that makes no sense; the message names it.
    """
    for source, read in PLATFORMS.items():
        try:
            place = read(environment, nodes, own_addresses)
        except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
            raise SpecError(
                f"the environment's description of the gang by {source} cannot be read ({error!r}); set "
                "SPILLWAY_GANG_RANK, SPILLWAY_GANG_NODES and SPILLWAY_GANG_HEAD instead"
            ) from error
        if place is not None:
            return _member(place, source, environment)
    return None


def is_gang(submission: Submission) -> bool:
    """Return whether a submission is for several processes that start and stop together."""
    return submission.nodes > 1 or submission.launcher is not Launcher.PLAIN


def is_torchrun_worker(environment: Environment) -> bool:
    """Return whether `torchrun` started this process."""
    return "TORCHELASTIC_RUN_ID" in environment


def _member(place: _Place, source: str, environment: Environment) -> Member:
    if not 0 <= place.rank < place.nodes:
        raise SpecError(
            f"{source} says that this is member {place.rank} of {place.nodes}: members count from 0"
        )
    return Member(
        rank=place.rank,
        nodes=place.nodes,
        head_address=place.head,
        port=port(environment, "SPILLWAY_GANG_PORT", usual=DEFAULT_PORT),
        source=source,
    )


def _torchrun(environment: Environment, _nodes: int, _own: frozenset[str]) -> _Place | None:
    """Source: PyTorch, torchrun (Elastic Launch), "Environment Variables"; docs.pytorch.org/docs/stable/elastic/run.html."""
    if not is_torchrun_worker(environment):
        return None
    return _Place(
        rank=int(environment["RANK"]),
        nodes=int(environment["WORLD_SIZE"]),
        head=environment["MASTER_ADDR"],
    )


def _explicit(environment: Environment, nodes: int, _own: frozenset[str]) -> _Place | None:
    """What a backend that knows sets itself; see docs/gangs.md."""
    if not {"SPILLWAY_GANG_RANK", "SPILLWAY_GANG_HEAD"} <= environment.keys():
        return None
    return _Place(
        rank=int(environment["SPILLWAY_GANG_RANK"]),
        nodes=int(environment.get("SPILLWAY_GANG_NODES", nodes)),
        head=environment["SPILLWAY_GANG_HEAD"],
    )


def _slurm(environment: Environment, _nodes: int, _own: frozenset[str]) -> _Place | None:
    """A task of a step, one on each node. Source: SchedMD, srun, "OUTPUT ENVIRONMENT VARIABLES"; slurm.schedmd.com/srun.html."""
    if "SLURM_NODEID" not in environment:
        return None
    nodes = environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES", "1")
    names = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
    if int(nodes) < 2:
        return None
    return _Place(rank=int(environment["SLURM_NODEID"]), nodes=int(nodes), head=first_host(names))


def _kubernetes(environment: Environment, nodes: int, _own: frozenset[str]) -> _Place | None:
    """An Indexed Job or a JobSet behind a headless service, whose names the manifest puts into the environment.

    Sources: Kubernetes, Jobs, "Completion mode" (`JOB_COMPLETION_INDEX`; the pod's host name is `$(job-name)-$(index)`),
    kubernetes.io/docs/concepts/workloads/controllers/job; JobSet, "Concepts", jobset.sigs.k8s.io/docs/concepts.
    """
    job, service = environment.get("SPILLWAY_GANG_JOB"), environment.get("SPILLWAY_GANG_SERVICE")
    if "JOB_COMPLETION_INDEX" not in environment or not job or not service:
        return None
    return _Place(
        rank=int(environment["JOB_COMPLETION_INDEX"]),
        nodes=int(environment.get("SPILLWAY_GANG_NODES", nodes)),
        head=f"{job}-0.{service}",
    )


def _aws_batch(environment: Environment, _nodes: int, _own: frozenset[str]) -> _Place | None:
    """A multi-node parallel job; the main node is member 0, wherever it stands in AWS's count.

    Source: AWS Batch, "AWS Batch job environment variables"; docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html.
    """
    if "AWS_BATCH_JOB_NODE_INDEX" not in environment:
        return None
    nodes = int(environment["AWS_BATCH_JOB_NUM_NODES"])
    main = int(environment.get("AWS_BATCH_JOB_MAIN_NODE_INDEX", "0"))
    rank = (int(environment["AWS_BATCH_JOB_NODE_INDEX"]) - main) % nodes
    # The main node is not told its own address, and needs it for nothing but itself.
    head = LOOPBACK if rank == 0 else environment["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"]
    return _Place(rank=rank, nodes=nodes, head=head)


def _google_batch(environment: Environment, _nodes: int, own: frozenset[str]) -> _Place | None:
    """A task group with `requireHostsFile`; members count in the order of the file, which all of them have.

    Source: Google Cloud, Batch API, `TaskGroup.requireHostsFile`; cloud.google.com/batch/docs/reference/rest/v1/projects.locations.jobs.
    """
    if "BATCH_HOSTS_FILE" not in environment:
        return None
    hosts = Path(environment["BATCH_HOSTS_FILE"]).read_text(encoding="utf-8").split()
    mine = [rank for rank, host in enumerate(hosts) if host in own]
    rank = mine[0] if mine else int(environment["BATCH_TASK_INDEX"])
    return _Place(rank=rank, nodes=len(hosts), head=hosts[0])


def _vertex(environment: Environment, _nodes: int, _own: frozenset[str]) -> _Place | None:
    """Worker pools, one after the other.

    Source: Google Cloud, Vertex AI, "Distributed training", `CLUSTER_SPEC`; cloud.google.com/vertex-ai/docs/training/distributed-training.
    """
    if "CLUSTER_SPEC" not in environment:
        return None
    spec = json.loads(environment["CLUSTER_SPEC"])
    pools: dict[str, list[str]] = spec["cluster"]
    before = [len(pools[name]) for name in sorted(pools) if name < spec["task"]["type"]]
    return _Place(
        rank=sum(before) + int(spec["task"]["index"]),
        nodes=sum(len(members) for members in pools.values()),
        head=pools["workerpool0"][0].rpartition(":")[0] or pools["workerpool0"][0],
    )


def _tpu(environment: Environment, _nodes: int, _own: frozenset[str]) -> _Place | None:
    """The hosts of a TPU slice. Source: Google Cloud, GKE, "Plan TPUs", TPU_WORKER_ID; cloud.google.com/kubernetes-engine/docs/how-to/tpus."""
    if not environment.get("TPU_WORKER_HOSTNAMES"):
        return None
    hosts = environment["TPU_WORKER_HOSTNAMES"].split(",")
    return _Place(rank=int(environment["TPU_WORKER_ID"]), nodes=len(hosts), head=hosts[0])


def _sagemaker(environment: Environment, _nodes: int, _own: frozenset[str]) -> _Place | None:
    """Source: AWS, SageMaker Training Toolkit, ENVIRONMENT_VARIABLES.md; github.com/aws/sagemaker-training-toolkit."""
    if "SM_HOSTS" not in environment:
        return None
    hosts: list[str] = sorted(json.loads(environment["SM_HOSTS"]))
    return _Place(rank=hosts.index(environment["SM_CURRENT_HOST"]), nodes=len(hosts), head=hosts[0])


PLATFORMS: Final[Mapping[str, Callable[[Environment, int, frozenset[str]], _Place | None]]] = {
    "torchrun": _torchrun,  # its workers inherit what the node was told
    "SPILLWAY_GANG_RANK": _explicit,
    "Slurm": _slurm,
    "Kubernetes": _kubernetes,
    "AWS Batch": _aws_batch,
    "Google Batch": _google_batch,
    "Vertex AI": _vertex,
    "Cloud TPU": _tpu,
    "SageMaker": _sagemaker,
}


def first_host(node_list: str) -> str:
    """Return the first host of a Slurm node list such as `gpu[03-05,9],login`."""
    match = re.match(r"([^\[,]+)(?:\[([^\]]+)\]([^,]*))?", node_list)
    if match is None:
        raise ValueError(f"{node_list!r} is no list of nodes")
    name, numbers, rest = match.groups()
    if numbers is None:
        return str(name)
    return f"{name}{re.split('[-,]', numbers)[0]}{rest}"
