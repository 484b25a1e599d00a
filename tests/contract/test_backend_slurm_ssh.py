"""The Slurm backend through a login node: a real sshd on a port of its own, in front of a real cluster."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
import pytest

from conftest import require
from contract.in_shell import IN_SHELL
from contract.slurm_world import SlurmWorld
from spillway.backends.slurm.shells import SshShell
from spillway.checkpoints import open_store
from spillway.errors import AccessError, TransientError
from spillway.model import JobEvent
from spillway.runtime.exchange import read_result
from spillway.testing import ssh_server
from spillway.testing.backend_suite import BackendContract
from spillway.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.backends.protocol import Connection
    from spillway.testing.slurm_cluster import SlurmCluster


@pytest.fixture(scope="module")
def login_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """How to get to an sshd that lets in one key, and shows one; both keys are told as text."""
    program = ssh_server.find_sshd()
    require(program, ssh_server.INSTALL)
    assert program is not None
    with ssh_server.ssh_server(program, tmp_path_factory.mktemp("sshd")) as connection:
        files = {name: Path(path).read_text() for name, path in connection.extra.items()}
        _, _, host_key = files["known_hosts"].strip().partition(" ")
        yield replace(connection, extra={"private_key": files["key_file"], "host_key": host_key})


class SshWorld(SlurmWorld):
    def __init__(self, cluster: SlurmCluster, login_node: Connection) -> None:
        super().__init__(cluster)
        self.login_node = login_node

    def connection(self) -> Connection:
        return self.login_node


class TestSlurmThroughALoginNode(BackendContract):
    """With jobs of shell, which cost nothing beside the way to them."""

    @pytest.fixture
    def world(self, cluster: SlurmCluster, login_node: Connection) -> Iterator[SshWorld]:
        world = SshWorld(cluster, login_node)
        world.python.write_text(IN_SHELL)
        yield world
        world.release_all()


def test_what_is_sent_through_a_login_node_arrives_as_it_was(
    cluster: SlurmCluster, login_node: Connection
) -> None:
    world = SshWorld(cluster, login_node)
    backend = world.connect()
    arguments = {"text": "'\"$(exit 9)`exit 9`\\ ${HOME}\nEOF\n\u00e4\u20ac"}
    submission = world.job_of("sample_jobs:echo", **arguments)
    job = backend.submit(submission)
    assert world.wait(backend, job).event is JobEvent.SUCCEEDED
    result = read_result(open_store(submission.store), submission.prefix, submission.token)
    assert result is not None
    assert result.value == arguments


def make_key() -> paramiko.ECDSAKey:
    return paramiko.ECDSAKey.generate()


def text_of(key: paramiko.PKey) -> str:
    text = StringIO()
    key.write_private_key(text)
    return text.getvalue()


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
