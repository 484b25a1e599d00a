"""A Slurm cluster of one's own for the length of a test: real daemons, several nodes on this machine, gone afterwards."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import httpx
import psutil

from spillway.testing import slurm_accounting
from spillway.testing.servers import NotStartedError, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAMS: Final = ("munged", "slurmctld", "slurmd", "slurmrestd", "sbatch", "squeue", "scontrol")
INSTALL: Final = (
    "apt-get install --no-install-recommends slurmctld slurmd slurm-client slurmrestd"
    " slurm-wlm-jwt-plugin munge"
)
NODES: Final = ("pn1", "pn2", "pn3")
API_VERSION: Final = "v0.0.38"

_NO_LIMITS: Final = "CgroupAutomount=no\n"
_LIMITS: Final = f"{_NO_LIMITS}CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n"
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_SECONDS_TO_START: Final = 60
_SECONDS_TO_STOP: Final = 10

# The machine has fewer cores than the nodes say, hence config_overrides. A requeued or cancelled job would wait for its
# credential to expire, two minutes by default. A gres needs files to be counted; null devices are enough. Control groups are
# named by node and number of the job, and clusters of one machine share them.
_CONF: Final = """
ClusterName=partner
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={folder}/state/jwt.key
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
FirstJobId={first_job}
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=300
MinJobAge={remembered_seconds}
KillWait=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{accounting}
{nodes}
PartitionName=scavenge Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=requeues Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=cancels Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime=0
PartitionName=reserved Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


MEMORY_GROUPS: Final = Path("/sys/fs/cgroup/memory")
"""Where control groups of version 1 limit memory."""


def can_limit_memory() -> bool:
    """Return whether a cluster can hold its jobs to their memory here."""
    return os.geteuid() == 0 and (MEMORY_GROUPS / "memory.limit_in_bytes").exists()


def missing_programs() -> tuple[str, ...]:
    """Return which of the programs that a cluster needs are not installed."""
    return tuple(name for name in PROGRAMS if _program(name) is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmCluster:
    """A cluster that runs.

    Attributes:
        folder: Where everything of it is; `folder / "jobs"` is for the jobs.
        environment: What its commands need.
        rest_url: Where `slurmrestd` answers.
        user: Who runs its daemons and owns its jobs.
        daemons: Its processes, by what they are; a node's by its name.
    """

    folder: Path
    environment: Mapping[str, str]
    rest_url: str
    user: str
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        """Its `slurm.conf`."""
        return self.folder / "etc" / "slurm.conf"

    @property
    def jobs(self) -> Path:
        """A folder that every node shares."""
        return self.folder / "jobs"

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Return what one of Slurm's commands prints."""
        done = subprocess.run(  # noqa: S603  # Slurm's own commands
            command,
            env=dict(self.environment),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
        return done.stdout

    def token(self, *, seconds: int = 3600, user: str | None = None) -> str:
        """Return a JWT for the user, by default the cluster's."""
        name = self.user if user is None else user
        printed = self.run("scontrol", "token", f"username={name}", f"lifespan={seconds}")
        return printed.strip().partition("=")[2]

    def start_node(self, name: str) -> None:
        """Start the node's daemon."""
        _start(self, name, _require("slurmd"), "-D", "-N", name, "-f", str(self.conf))

    def kill_node(self, name: str) -> int:
        """Kill the node's daemon and its step managers, so that its jobs run on unseen; return how many managers it had."""
        daemon = self.daemons.pop(name)
        spool = str(self.folder / "spool" / name)
        managers = [process for process in psutil.process_iter() if _manages_steps(process, spool)]
        daemon.kill()
        daemon.wait()
        for manager in managers:
            with suppress(psutil.NoSuchProcess):
                manager.kill()
        return len(managers)

    def declare_down(self, name: str) -> None:
        """Take the node for dead at once, as the controller would after `SlurmdTimeout`."""
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=lost")


@contextmanager
def slurm_cluster(
    variables: Mapping[str, str] = _NONE,
    *,
    accounting: bool = False,
    limits_memory: bool = False,
    remembered_seconds: int = 300,
) -> Iterator[SlurmCluster]:
    """Run a cluster of three nodes, each with 8 CPUs, 16 GB and 8 GPUs that are null devices.

    Args:
        variables: More environment variables of its daemons.
        accounting: Whether `slurmdbd` keeps accounts, and their limits count.
        limits_memory: Whether jobs are killed that use more memory than they asked for; see `can_limit_memory`.
        remembered_seconds: How long the controller remembers a job that has ended, 2 at least.
    """
    # Not pytest's folder: slurmrestd refuses root, and whom it runs as must get to the configuration.
    folder = Path(tempfile.mkdtemp(prefix="spillway-slurm-"))
    folder.chmod(0o755)
    cluster = _lay_out(
        folder,
        variables,
        accounting=accounting,
        limits_memory=limits_memory,
        remembered_seconds=remembered_seconds,
    )
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        socket = stack.enter_context(slurm_accounting.database(folder)) if accounting else None
        stack.callback(_stop_all, cluster)
        _start(cluster, "munged", *_munged(folder))
        _wait_for((folder / "run" / "munge.sock").exists, cluster, "munged")
        if socket is not None:
            _start_accounting(cluster, socket)
        _start(cluster, "slurmctld", _require("slurmctld"), "-D", "-c", "-f", str(cluster.conf))
        for name in NODES:
            cluster.start_node(name)
        _start_rest(cluster, accounting=accounting)
        _wait_for(lambda: _is_idle(cluster), cluster, "the nodes")
        _wait_for(lambda: _answers(cluster), cluster, "slurmrestd")
        yield cluster


def processes_of(cluster: SlurmCluster) -> Iterator[psutil.Process]:
    """Yield every live process that the cluster started, its jobs' among them."""
    spool = str(cluster.folder / "spool")
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            # A step manager writes its title over its environment.
            conf = process.environ().get("SLURM_CONF")
            if conf == str(cluster.conf) or _manages_steps(process, spool):
                yield process


def _lay_out(
    folder: Path,
    variables: Mapping[str, str],
    *,
    accounting: bool,
    limits_memory: bool,
    remembered_seconds: int,
) -> SlurmCluster:
    for name in ("etc", "log", "state", "run", "jobs", "dev", *(f"spool/{one}" for one in NODES)):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o755)
    for name in ("munge.key", "state/jwt.key"):
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(1024 if name == "munge.key" else 32))
    user = pwd.getpwuid(os.geteuid()).pw_name
    accounts = "AccountingStorageType=accounting_storage/none"
    if accounting:
        accounting_port = free_port()
        accounts = slurm_accounting.SETTINGS.format(folder=folder, port=accounting_port)
        slurm_accounting.configure(folder, port=accounting_port, user=user)
    settings = _CONF.format(
        accounting=accounts,
        task_plugin="task/cgroup" if limits_memory else "task/none",
        first_job=1 + secrets.randbelow(1 << 24),
        remembered_seconds=remembered_seconds,
        user=user,
        port=free_port(),
        folder=folder,
        nodes=_node_lines(),
    )
    (folder / "etc" / "slurm.conf").write_text(settings)
    (folder / "etc" / "gres.conf").write_text(_gres_lines(folder))
    (folder / "etc" / "cgroup.conf").write_text(_LIMITS if limits_memory else _NO_LIMITS)
    return SlurmCluster(
        folder=folder,
        environment={
            "SLURM_CONF": str(folder / "etc" / "slurm.conf"),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            **variables,
        },
        rest_url=f"http://127.0.0.1:{free_port()}",
        user=user,
    )


def _node_lines() -> str:
    shape = "NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:h100:8"
    return "\n".join(f"NodeName={name} {shape} Port={free_port()} State=UNKNOWN" for name in NODES)


def _gres_lines(folder: Path) -> str:
    for index in range(8):
        device = folder / "dev" / f"h100-{index}"
        try:
            os.mknod(device, 0o20666, os.makedev(1, 3))
        except PermissionError:  # counted all the same, but CUDA_VISIBLE_DEVICES is not set
            device.touch()
    return f"NodeName=pn[1-3] Name=gpu Type=h100 File={folder}/dev/h100-[0-7]\n"


def _munged(folder: Path) -> tuple[str, ...]:
    return (
        _require("munged"),
        "--foreground",
        f"--key-file={folder}/munge.key",
        f"--socket={folder}/run/munge.sock",
        f"--pid-file={folder}/run/munged.pid",
        f"--log-file={folder}/log/munged.log",
        f"--seed-file={folder}/munge.seed",
        "--num-threads=2",
    )


def _start_accounting(cluster: SlurmCluster, socket: Path) -> None:
    """Start slurmdbd, and have it know the cluster and the account `acme`, which everybody here is in."""
    variables = slurm_accounting.daemon_environment(socket)
    _start(cluster, "slurmdbd", _require("slurmdbd"), "-D", **variables)

    def is_known() -> bool:
        try:
            cluster.run("sacctmgr", "-i", "add", "cluster", "partner")
        except (RuntimeError, subprocess.TimeoutExpired):
            return False
        return True

    _wait_for(is_known, cluster, "slurmdbd")
    cluster.run("sacctmgr", "-i", "add", "account", "acme")
    cluster.run("sacctmgr", "-i", "add", "user", cluster.user, "account=acme")


def _start_rest(cluster: SlurmCluster, *, accounting: bool) -> None:
    """Start slurmrestd, as somebody who may do nothing: each request brings its own token."""
    offers = f"openapi/{API_VERSION}" + (f",openapi/db{API_VERSION}" if accounting else "")
    command = [_require("slurmrestd"), "-a", "rest_auth/jwt", "-s", offers]
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        command += ["-u", nobody.pw_name, "-g", str(nobody.pw_gid)]
    address = cluster.rest_url.removeprefix("http://")
    _start(cluster, "slurmrestd", *command, address, SLURM_JWT="daemon")


def _start(cluster: SlurmCluster, name: str, *command: str, **environment: str) -> None:
    with (cluster.folder / "log" / f"{name}.out").open("wb") as output:
        cluster.daemons[name] = subprocess.Popen(  # noqa: S603  # Slurm's own daemons
            command,
            env={**cluster.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cluster.folder,
            start_new_session=True,  # Ctrl-C at a terminal is for whoever stops them, in their order
        )


def _stop_all(cluster: SlurmCluster) -> None:
    """Stop every process of the cluster, whatever state it is in."""
    left = list(processes_of(cluster))
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for daemon in cluster.daemons.values():
        daemon.wait(timeout=_SECONDS_TO_STOP)
    psutil.wait_procs(left, timeout=_SECONDS_TO_STOP)


def _is_idle(cluster: SlurmCluster) -> bool:
    try:
        states = set(cluster.run("sinfo", "-h", "-N", "-o", "%t").split())
    except RuntimeError:
        return False
    return states == {"idle"}


def _answers(cluster: SlurmCluster) -> bool:
    try:
        httpx.get(f"{cluster.rest_url}/openapi/v3", timeout=5)
    except httpx.TransportError:
        return False
    return True


def _wait_for(condition: Callable[[], bool], cluster: SlurmCluster, what: str) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
                for path in sorted((cluster.folder / "log").iterdir())
            )
            raise NotStartedError(f"{what} did not start:\n{logs}")
        time.sleep(0.05)


def _manages_steps(process: psutil.Process, spool: str) -> bool:
    """Return whether it is a step manager of the node whose folder is `spool`: each listens on a socket there."""
    try:
        if not process.name().startswith("slurmstepd"):
            return False
        sockets = process.net_connections(kind="unix")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(spool in str(one.laddr) for one in sockets)


def _require(name: str) -> str:
    program = _program(name)
    if program is None:
        raise NotStartedError(f"{name} is not installed: {INSTALL}")
    return program


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin")
