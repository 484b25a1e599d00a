"""The ground of `make demo-wide`: real clusters beside this machine, and the owners of one, who want it back."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from string import Template
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from spillway.backends.protocol import Connection
from spillway.demo.site import HOME_VARIABLE, Site
from spillway.errors import SpecError
from spillway.testing import ray_cluster as ray
from spillway.testing import slurm_cluster as slurm
from spillway.workloads.sizes import Size, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spillway.testing.ray_cluster import RayCluster
    from spillway.testing.slurm_cluster import SlurmCluster

_RAY_CPUS: Final = 2
_DAY_SECONDS: Final = 86_400
_LOOK_SECONDS: Final = 0.5
_SLURM_POOL: Final = "  # With Slurm:\n"

# Parts of what the size of the run is expected to take.
_OF_SWEEP_IN_MINIMUM: Final = 0.75
_OF_TRAINING_ON_SLURM: Final = 0.2
_OF_TRAINING_ON_SPOT: Final = 0.4


@contextmanager
def wide_site(
    home: Path, pools_file: Path, *, size: str, tell: Callable[[str], None]
) -> Iterator[Site]:
    """Run a Ray cluster, and a Slurm cluster where that is installed; yield what the demo runs on then.

    Args:
        home: The demo's folder.
        pools_file: Where to write the pools.
        size: Workload size of the run.
        tell: Called with a line for people when something happens to a cluster.

    Raises:
        SpecError: Ray is not installed, or there is no such size.
        NotStartedError: A cluster did not start.
    """
    expected = size_of(size)
    if not ray.is_installed():
        raise SpecError("make demo-wide needs Ray: pip install 'spillway[ray]'")
    with ExitStack() as clusters:
        ray_cluster = clusters.enter_context(ray.ray_cluster(cpus=_RAY_CPUS))
        tell(f"Ray is up, with a node of {_RAY_CPUS} CPUs.")
        slurm_cluster = None
        if missing := slurm.missing_programs():
            tell(f"Slurm is not installed ({', '.join(missing)} missing), so this goes on without.")
            tell(f"To have it as well: {slurm.INSTALL}")
        else:
            slurm_cluster = clusters.enter_context(slurm.slurm_cluster({HOME_VARIABLE: str(home)}))
            tell(f"Slurm is up, with {len(slurm.NODES)} nodes.")
            after = timedelta(seconds=expected.train_seconds * _OF_TRAINING_ON_SLURM)
            clusters.enter_context(_owners(slurm_cluster, after, tell))
        pools_file.write_text(render_pools(expected, slurm_cluster), encoding="utf-8")
        yield Site(
            home=home,
            pools_file=pools_file,
            connections=_connections(ray_cluster, slurm_cluster),
        )


def render_pools(size: Size, slurm_cluster: SlurmCluster | None) -> str:
    """Return the pools file, for a run of this size on this machine; without a Slurm cluster, without its pool."""
    text = Path(__file__).with_name("pools-wide.yaml").read_text(encoding="utf-8")
    always, _, with_slurm = text.partition(_SLURM_POOL)
    facts = {
        "python": json.dumps(sys.executable),
        "minimum_slot_hours": f"{size.sweep_seconds * _OF_SWEEP_IN_MINIMUM / 3600:.4f}",
        "spot_seconds": f"{size.train_seconds * _OF_TRAINING_ON_SPOT:.0f}",
    }
    if slurm_cluster is None:
        return Template(always).substitute(facts)
    folder = json.dumps(str(slurm_cluster.jobs))
    return Template(always + with_slurm).substitute(facts, slurm_folder=folder)


def _connections(
    ray_cluster: RayCluster, slurm_cluster: SlurmCluster | None
) -> dict[str, Connection]:
    connections = {"demo_ray": Connection(host=ray_cluster.url, password=ray_cluster.token)}
    if slurm_cluster is not None:
        connections["demo_slurm"] = Connection(
            host=slurm_cluster.rest_url,
            login=slurm_cluster.user,
            password=slurm_cluster.token(seconds=_DAY_SECONDS),
        )
    return connections


@contextmanager
def _owners(cluster: SlurmCluster, after: timedelta, tell: Callable[[str], None]) -> Iterator[None]:
    """Have the cluster's owners take it back, with a job of theirs on every node, once the training has run for so long."""
    enough = Event()

    def watch() -> None:
        while not enough.wait(_LOOK_SECONDS):
            if _training_has_run(cluster) >= after:
                _take_back(cluster)
                tell("The owners of the Slurm cluster want all of it: Slurm preempts the training.")
                return

    thread = Thread(target=watch, name="owners", daemon=True)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def _training_has_run(cluster: SlurmCluster) -> timedelta:
    """Return for how long the training has been running there; none while it is not."""
    listed = cluster.run("squeue", "--noheader", "--states=RUNNING", "--format=%M %k")
    for line in listed.splitlines():
        time, _, key = line.partition(" ")
        if "/train/" in key:
            minutes, _, seconds = time.rpartition(":")
            return timedelta(minutes=int(minutes or 0), seconds=int(seconds))
    return timedelta(0)


def _take_back(cluster: SlurmCluster) -> None:
    everything = ("--partition=reserved", f"--nodes={len(slurm.NODES)}", "--exclusive")
    its_own = (f"--chdir={cluster.jobs}", "--output=/dev/null", "--wrap=sleep infinity")
    cluster.run("sbatch", "--job-name=of-the-owners", *everything, *its_own)
