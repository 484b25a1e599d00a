"""Slurm's accounting for the length of a test: `slurmdbd` over a MariaDB that only listens on a socket of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PROGRAMS: Final = ("slurmdbd", "sacctmgr", "mariadbd", "mariadb-install-db", "mariadb")
INSTALL: Final = (
    "apt-get install --no-install-recommends slurmdbd slurm-wlm-mysql-plugin mariadb-server"
)
SETTINGS: Final = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/run/munge.sock
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
"""
"""For `slurm.conf`. A controller with a munge of its own has to name its socket for this traffic too."""

_CONF: Final = """
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={folder}/state/jwt.key
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm_acct
"""
_SCHEMA: Final = "create database slurm_acct; create user slurm@localhost; grant all on slurm_acct.* to slurm@localhost;"
_SECONDS_TO_START: Final = 60


def missing_programs() -> tuple[str, ...]:
    """Return which of the programs that accounting needs are not installed."""
    return tuple(name for name in PROGRAMS if _program(name) is None)


@contextmanager
def database(folder: Path) -> Iterator[Path]:
    """Run an empty MariaDB below `folder`; yield its socket."""
    data, socket = folder / "data", folder / "my.sock"
    log = folder / "mariadb.log"
    user = f"--user={pwd.getpwuid(os.geteuid()).pw_name}"
    with log.open("wb") as output:
        subprocess.run(  # noqa: S603  # the server's own programs
            [
                _require("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={data}",
                user,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            stdout=output,
            stderr=output,
            check=True,
        )
        server = subprocess.Popen(  # noqa: S603
            [
                _require("mariadbd"),
                "--no-defaults",
                f"--datadir={data}",
                user,
                f"--socket={socket}",
                "--skip-networking",
                f"--pid-file={folder}/my.pid",
                "--innodb-buffer-pool-size=64M",
                "--innodb-log-file-size=16M",
                "--innodb-lock-wait-timeout=900",
                "--innodb-flush-log-at-trx-commit=0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            _until(lambda: _ask(socket, _SCHEMA), log)
            yield socket
        finally:
            server.kill()  # nobody needs what is in it
            server.wait()


def configure(folder: Path, *, port: int, user: str) -> None:
    """Write `slurmdbd.conf` beside the cluster's `slurm.conf`."""
    path = folder / "etc" / "slurmdbd.conf"
    path.touch(mode=0o600)  # it refuses to start otherwise
    path.write_text(_CONF.format(folder=folder, port=port, user=user))


def daemon_environment(socket: Path) -> Mapping[str, str]:
    """Return how `slurmdbd` finds the database."""
    return {"MYSQL_UNIX_PORT": str(socket)}


def _ask(socket: Path, statements: str) -> bool:
    command = [_require("mariadb"), "--no-defaults", f"--socket={socket}", "-uroot", "-e"]
    done = subprocess.run([*command, statements], capture_output=True, check=False)  # noqa: S603
    return done.returncode == 0


def _until(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the database did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)


def _require(name: str) -> str:
    program = _program(name)
    if program is None:
        raise RuntimeError(f"{name} is not installed: {INSTALL}")
    return program


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin")
