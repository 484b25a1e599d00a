"""The Slurm backend through a login node: a real sshd on a port of its own, in front of a real cluster."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
import pytest

from conftest import require
from contract.slurm_world import SlurmWorld, wait_for
from spillway.backends.protocol import Connection, Job
from spillway.backends.slurm.shells import SshShell
from spillway.errors import AccessError, TransientError
from spillway.model import JobEvent
from spillway.testing.backend_suite import TEXT, Behaviour
from spillway.testing.servers import free_port
from spillway.testing.slurm_cluster import INSTALL, missing_programs, slurm_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.testing.slurm_cluster import SlurmCluster


def find_sshd() -> str | None:
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    missing = missing_programs()
    require(not missing, f"{', '.join(missing)} not installed: {INSTALL}")
    with slurm_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def login_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """How to get to an sshd that lets in one key, and shows one."""
    program = find_sshd()
    require(program, "no sshd: apt-get install openssh-server")
    assert program is not None
    folder = tmp_path_factory.mktemp("sshd")
    if os.geteuid() == 0:  # where sshd locks up what has no rights yet; made at boot by Debian
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    ours, hosts = make_key(), make_key()
    (folder / "host").touch(mode=0o600)
    (folder / "host").write_text(text_of(hosts))
    (folder / "keys").write_text(f"{ours.get_name()} {ours.get_base64()}\n")
    port = free_port()
    (folder / "conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/keys\nStrictModes no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\n"
    )
    command = [program, "-D", "-e", "-f", str(folder / "conf")]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(lambda: listens(port))
        yield Connection(
            host="127.0.0.1",
            port=port,
            login=getpass.getuser(),
            extra={
                "private_key": text_of(ours),
                "host_key": f"{hosts.get_name()} {hosts.get_base64()}",
            },
        )
    finally:
        daemon.terminate()
        daemon.wait(timeout=10)


def make_key() -> paramiko.ECDSAKey:
    return paramiko.ECDSAKey.generate()


def text_of(key: paramiko.PKey) -> str:
    text = StringIO()
    key.write_private_key(text)
    return text.getvalue()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class SshWorld(SlurmWorld):
    def __init__(self, cluster: SlurmCluster, login_node: Connection) -> None:
        super().__init__(cluster)
        self.login_node = login_node

    def connection(self) -> Connection:
        return self.login_node


@pytest.fixture
def world(cluster: SlurmCluster, login_node: Connection) -> Iterator[SshWorld]:
    world = SshWorld(cluster, login_node)
    yield world
    SlurmWorld.release_all(world)


def test_a_job_lives_and_is_released_through_a_login_node(world: SshWorld) -> None:
    backend = world.connect()
    assert backend.free_slots() == world.slots
    running = backend.submit(world.submission(Behaviour.RUNS_ON))
    world.wait(backend, running, frozenset({JobEvent.STARTED}))
    assert list(backend.list_jobs()) == [running]
    backend.release(running)
    assert world.wait(backend, running).event is JobEvent.CANCELLED


def test_output_and_end_come_through_a_login_node(world: SshWorld) -> None:
    backend = world.connect()
    job = backend.submit(world.submission(Behaviour.PRINTS))
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    assert TEXT in backend.read_log(job, 0).text
    unknown = Job(key="dag/run/never submitted/-1/1")
    assert backend.observe([unknown])[unknown.key].event is JobEvent.VANISHED


def test_a_connection_that_broke_is_made_again(login_node: Connection) -> None:
    shell = SshShell(login_node)
    assert shell.run(["echo", "a 'b'"]).output == b"a 'b'\n"
    assert shell._client is not None
    shell._client.close()
    assert shell.run(["cat"], b"through").output == b"through"
    assert shell.run(["sh", "-c", "echo no >&2; exit 4"]).exit_code == 4
    shell.close()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"private_key": text_of(make_key())}, AccessError),
        ({"private_key": "no key at all"}, AccessError),
        ({"host_key": f"ecdsa-sha2-nistp256 {make_key().get_base64()}"}, AccessError),
        ({"host_key": ""}, AccessError),
    ],
    ids=["another_key", "no_key", "another_host", "unknown_host"],
)
def test_who_is_not_let_in_or_not_whom_we_know_is_named(
    login_node: Connection, change: dict[str, Any], expected: type[Exception]
) -> None:
    shell = SshShell(replace(login_node, extra={**login_node.extra, **change}))
    with pytest.raises(expected):
        shell.run(["true"])


def test_a_login_node_that_does_not_answer_is_asked_again_later(login_node: Connection) -> None:
    with pytest.raises(TransientError, match="could not be asked"):
        SshShell(replace(login_node, port=free_port())).run(["true"])
