"""A real sshd of the tests' own on a port of its own: it lets in one key, and shows one."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import paramiko

from spillway.backends.protocol import Connection
from spillway.testing.servers import NotStartedError, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALL: Final = "no sshd: apt-get install openssh-server"
_PATIENCE_SECONDS: Final = 20.0
# The shell of each command would read what the user has for it at home, such as tools that take a tenth of a second to set up.
_SETTINGS: Final = """Port {port}
SetEnv HOME={folder}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile none
UsePAM no
AuthorizedKeysFile {folder}/keys
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
MaxSessions 100
"""


def find_sshd() -> str | None:
    """Return the server's program, or None where it is not installed."""
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")


@contextmanager
def ssh_server(program: str, folder: Path) -> Iterator[Connection]:
    """Run a server that keeps its files in `folder`; yield how to get in as this user.

    The connection's `extra` has `key_file` and `known_hosts`, as files below `folder`.
    """
    if os.geteuid() == 0:  # where sshd locks up what has no rights yet; made at boot by Debian
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    ours, hosts = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()
    port = free_port()
    for name, key in (("key", ours), ("host", hosts)):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(_text_of(key))
    (folder / "keys").write_text(f"{_line(ours)}\n")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {_line(hosts)}\n")
    (folder / "conf").write_text(_SETTINGS.format(port=port, folder=folder))
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(  # noqa: S603 # the program that `find_sshd` found
            [program, "-D", "-e", "-f", str(folder / "conf")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(port, daemon, folder / "log")
        files = {"key_file": str(folder / "key"), "known_hosts": str(folder / "known_hosts")}
        yield Connection(host="127.0.0.1", port=port, login=getpass.getuser(), extra=files)
    finally:
        daemon.terminate()
        daemon.wait(timeout=10)


def _wait_for(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _listens(port):
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise NotStartedError(f"sshd did not start: {log.read_text(errors='replace')}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _text_of(key: paramiko.PKey) -> str:
    text = StringIO()
    key.write_private_key(text)
    return text.getvalue()


def _line(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"
