"""Where Slurm's commands run: on this machine, or on a login node over SSH."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Final, Protocol

import paramiko
from paramiko.hostkeys import HostKeyEntry
from paramiko.ssh_exception import IncompatiblePeer

from spillway.backends.slurm.failures import LATER, NAME
from spillway.errors import AccessError, TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spillway.backends.protocol import Connection

TIMEOUT_SECONDS: Final = 20.0

# A command inherits what Slurm's clients need and nothing else: `sbatch` would hand the scheduler's secrets to the job.
_INHERITED: Final = ("HOME", "LANG", "LOGNAME", "PATH", "USER")


class UnknownHostError(paramiko.SSHException):  # type: ignore[misc]  # mypy has no types of paramiko
    """The host has shown a key that nobody has vouched for."""


class _RefuseUnknown(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]  # the same
    def missing_host_key(
        self,
        client: paramiko.SSHClient,  # noqa: ARG002  # paramiko's signature
        hostname: str,
        key: paramiko.PKey,
    ) -> None:
        raise UnknownHostError(
            f"{hostname} shows the unknown key {key.get_name()} {key.get_base64()}"
        )


REFUSED: Final = (
    paramiko.AuthenticationException,
    paramiko.BadHostKeyException,
    IncompatiblePeer,
    UnknownHostError,
)
"""What a person has to put right; everything else may pass."""
FAILED: Final = (paramiko.SSHException, OSError, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a command ended."""

    exit_code: int
    output: bytes
    errors: str


class Shell(Protocol):
    """Runs commands, and waits for them."""

    def run(self, command: Sequence[str], stdin: bytes = b"") -> Completed:
        """Run the command to its end.

        Raises:
            TransientError: It could not be run, or took too long; perhaps it did what it should.
            AccessError: The machine does not let us in.
        """
        ...


class LocalShell:
    """This machine, where it is a login node."""

    def run(self, command: Sequence[str], stdin: bytes = b"") -> Completed:
        """Run the command to its end."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            done = subprocess.run(  # noqa: S603  # Slurm's commands, each argument by itself
                command,
                input=stdin,
                capture_output=True,
                check=False,
                timeout=TIMEOUT_SECONDS,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise TransientError(
                f"{command[0]} did not end within {TIMEOUT_SECONDS:.0f} s; {LATER}", backend=NAME
            ) from error
        except OSError as error:
            raise TransientError(f"cannot run {command[0]}: {error}", backend=NAME) from error
        return Completed(
            exit_code=done.returncode,
            output=done.stdout,
            errors=done.stderr.decode(errors="replace"),
        )


class SshShell:
    """A login node; one connection is kept, and made anew when it broke.

    The connection's `extra` may have `private_key` or `key_file`; `host_key`, the line of the node's public key, or
    `known_hosts`, a file of them; without either, the user's own known hosts count. An unknown host is refused.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client: paramiko.SSHClient | None = None
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], stdin: bytes = b"") -> Completed:
        """Run the command to its end."""
        with self._lock:
            try:
                return self._run(shlex.join(command), stdin)
            except FAILED as error:
                self._forget()
                raise explain(error, self._connection) from error

    def close(self) -> None:
        """Close the connection; the next command makes a new one."""
        with self._lock:
            self._forget()

    def _run(self, command: str, stdin: bytes) -> Completed:
        channel_in, channel_out, channel_err = self._connected().exec_command(
            command, timeout=TIMEOUT_SECONDS
        )
        channel_in.write(stdin)
        channel_in.channel.shutdown_write()
        output, errors = channel_out.read(), channel_err.read()
        return Completed(
            exit_code=channel_out.channel.recv_exit_status(),
            output=output,
            errors=errors.decode(errors="replace"),
        )

    def _connected(self) -> paramiko.SSHClient:
        transport = self._client.get_transport() if self._client is not None else None
        if self._client is None or transport is None or not transport.is_active():
            self._client = self._connect()
        return self._client

    def _connect(self) -> paramiko.SSHClient:
        told = self._connection
        assert told.host is not None
        client = paramiko.SSHClient()
        _trust(client, told)
        key_file = told.extra.get("key_file")
        client.connect(
            told.host,
            port=told.port or 22,
            username=told.login,
            password=told.password,
            pkey=_private_key(told),
            key_filename=str(key_file) if key_file else None,
            timeout=TIMEOUT_SECONDS,
            banner_timeout=TIMEOUT_SECONDS,
            auth_timeout=TIMEOUT_SECONDS,
            allow_agent=False,
            look_for_keys=False,
        )
        return client

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def explain(error: Exception, connection: Connection) -> AccessError | TransientError:
    """Return the exception for what went wrong with a connection."""
    if isinstance(error, REFUSED):
        return AccessError(
            f"{connection.host} does not let {connection.login} in, or is not known: {error}; correct login, key or"
            " host_key of the pool's connection",
            backend=NAME,
        )
    return TransientError(
        f"{connection.host} could not be asked over SSH: {str(error) or type(error).__name__}; {LATER}",
        backend=NAME,
    )


def _trust(client: paramiko.SSHClient, connection: Connection) -> None:
    """Let the client know which hosts to believe; it refuses all others."""
    host_key, known_hosts = connection.extra.get("host_key"), connection.extra.get("known_hosts")
    if host_key:
        port = connection.port or 22
        name = str(connection.host) if port == 22 else f"[{connection.host}]:{port}"
        entry = HostKeyEntry.from_line(f"{name} {host_key}")
        if entry is None:
            raise AccessError(
                "host_key of the connection is no public key: write `ssh-ed25519 AAAA...`",
                backend=NAME,
            )
        client.get_host_keys().add(name, entry.key.get_name(), entry.key)
    elif known_hosts:
        client.load_host_keys(str(known_hosts))
    else:
        client.load_system_host_keys()
    client.set_missing_host_key_policy(_RefuseUnknown())


def _private_key(connection: Connection) -> paramiko.PKey | None:
    text = connection.extra.get("private_key")
    if not text:
        return None
    kinds: tuple[type[paramiko.PKey], ...] = (
        paramiko.Ed25519Key,
        paramiko.ECDSAKey,
        paramiko.RSAKey,
    )
    for kind in kinds:
        try:
            return kind.from_private_key(StringIO(str(text)))
        except paramiko.SSHException:  # of another kind
            continue
    raise AccessError("private_key of the connection is no Ed25519, ECDSA or RSA key", backend=NAME)
