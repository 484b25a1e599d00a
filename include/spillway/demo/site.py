"""What a demo runs on: a folder of its own, its pools, and the connections that those name."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from spillway.backends import registry
from spillway.backends.protocol import Connection
from spillway.catalog.pools_file import load_pools
from spillway.dispatch import Dispatcher
from spillway.errors import SpecError
from spillway.ledger import Ledger
from spillway.reconcile import reconcile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.model import Pool

MARKER: Final = ".spillway-demo"
"""Marks a folder that a demo made, and that the next one may empty; locked while one runs."""

HOME_VARIABLE: Final = "SPILLWAY_DEMO"
"""What every server of a demo carries in its environment: the demo's folder."""

_SLURM: Final = "SLURM_CONF"
_SECONDS_TO_END: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a demo runs on.

    Attributes:
        home: Its folder, AIRFLOW_HOME.
        connections: Credentials of the clusters, by the name that the pools have for them.
    """

    home: Path
    pools_file: Path
    connections: Mapping[str, Connection] = field(default_factory=dict[str, Connection])

    @property
    def store(self) -> Path:
        """Folder of the checkpoint store."""
        return self.home / "store"

    @property
    def airflow_settings(self) -> dict[str, str]:
        """Variables that define the connections in Airflow."""
        ours = {"conn_type": "spillway", "extra": {"store_url": self.store.as_uri()}}
        theirs = {
            name: {
                "conn_type": "http",
                "host": one.host,
                "login": one.login,
                "password": one.password,
            }
            for name, one in self.connections.items()
        }
        return {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(connection)
            for name, connection in {"spillway_default": ours, **theirs}.items()
        }

    def dispatcher(self) -> Dispatcher:
        """Return a dispatcher on the demo's deployment, beside Airflow.

        Raises:
            PoolsFileError: The pools file has mistakes.
        """
        spillway_home = self.home / "spillway"
        return Dispatcher(
            pools=load_pools(self.pools_file, backends=registry.names()),
            ledger=Ledger.open(f"sqlite:///{spillway_home / 'ledger.db'}"),
            store_url=self.store.as_uri(),
            backend_of=lambda pool: registry.load(
                pool, home=spillway_home, connection=self._connection(pool)
            ),
        )

    def stop_jobs(self) -> None:
        """Stop every job that still runs: jobs outlive Airflow, which is what they are for."""
        if self.pools_file.exists() and (self.home / "spillway" / "ledger.db").exists():
            reconcile(self.dispatcher(), lambda _: False)

    def _connection(self, pool: Pool) -> Connection | None:
        return None if pool.connection is None else self.connections.get(pool.connection)


@contextmanager
def own_folder(home: Path, pools_file: Path) -> Iterator[None]:
    """Have the folder `home` for oneself, emptied of an earlier demo, whose processes may still run if it was killed.

    Raises:
        SpecError: The folder is not a demo's, or one runs in it.
    """
    if home.exists() and any(home.iterdir()) and not (home / MARKER).exists():
        raise SpecError(
            f"{home} holds something other than an earlier demo; give --home an empty folder"
        )
    home.mkdir(parents=True, exist_ok=True)
    with (home / MARKER).open("w") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SpecError(
                f"a demo runs in {home}; end it with Ctrl-C, or give --home another folder"
            ) from error
        _end_servers(home)
        Site(home=home, pools_file=pools_file).stop_jobs()
        _empty(home)
        os.environ[HOME_VARIABLE] = str(home)
        yield


def _empty(home: Path) -> None:
    for path in home.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()


def _end_servers(home: Path) -> None:
    """End what a demo that was killed has left: its servers, and what those started."""
    servers = [one for one in psutil.process_iter() if _variable(one, HOME_VARIABLE) == str(home)]
    clusters = {_variable(one, _SLURM) for one in servers} - {None}
    jobs = [one for one in psutil.process_iter() if _variable(one, _SLURM) in clusters]
    left = [one for one in {*servers, *jobs} if one.pid != os.getpid()]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_SECONDS_TO_END)


def _variable(process: psutil.Process, name: str) -> str | None:
    with suppress(psutil.Error):
        return process.environ().get(name)
    return None
