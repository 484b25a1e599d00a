"""From an Airflow connection to the `Dispatcher` of a deployment."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseHook
from airflow.sdk import Connection as AirflowConnection
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from spillway.airflow.clients import client_of
from spillway.backends import registry
from spillway.backends.protocol import Backend, Connection
from spillway.catalog.pools_file import load_pools
from spillway.catalog.store_place import UNKNOWN_PLACE, StorePlace, read_store_place
from spillway.dispatch import Dispatcher
from spillway.ledger import Ledger
from spillway.lookout import tables_in

if TYPE_CHECKING:
    from spillway.model import Pool

log = logging.getLogger(__name__)

DEFAULT_CONNECTION = "spillway_default"
AIRFLOW_HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Where one deployment keeps what it knows.

    Attributes:
        home: Folder of this machine, for what local pools keep.
        data: Folder that datasets and other outputs go to.
        store_place: Whose network and whose law the checkpoint store is under.
    """

    home: Path
    pools_file: Path
    ledger_url: str
    store_url: str
    data: str
    store_place: StorePlace = UNKNOWN_PLACE

    @property
    def keeps_checkpoints_by_default(self) -> bool:
        """Whether nobody said where checkpoints go, so that they are in a folder of this machine."""
        return self.store_url == _default_store(self.home)


class SpillwayHook(BaseHook):
    """Opens a deployment: its pools, its ledger and its checkpoint store.

    The connection's host, login, password and schema name a PostgreSQL ledger; without a host the ledger is an SQLite file
    below `home`. Its extra may set `pools_file`, `store_url` and `data`, and say where the store is, so that egress and
    residency are reckoned with: `store_provider`, `store_region`, `store_jurisdiction`. A deployment without the connection
    uses the defaults for all.
    """

    conn_name_attr = "spillway_conn_id"
    default_conn_name = DEFAULT_CONNECTION
    conn_type = "spillway"
    hook_name = "Spillway"

    def __init__(self, spillway_conn_id: str = DEFAULT_CONNECTION) -> None:
        super().__init__()
        self.spillway_conn_id = spillway_conn_id

    @staticmethod
    def get_ui_field_behaviour() -> dict[str, Any]:
        """Return what the connection form shows."""
        return {
            "hidden_fields": [],
            "relabeling": {"host": "Ledger host", "schema": "Ledger database"},
            "placeholders": {
                "host": "empty for an SQLite file",
                "extra": '{"pools_file": "...", "store_url": "file:///...", "data": "..."}',
            },
        }

    @cached_property
    def deployment(self) -> Deployment:
        """The deployment's places, from the connection, then the configuration, then the defaults."""
        try:
            connection = self.get_connection(self.spillway_conn_id)
        except AirflowNotFoundException:
            if self.spillway_conn_id != DEFAULT_CONNECTION:
                raise
            connection = AirflowConnection(conn_id=DEFAULT_CONNECTION, conn_type=self.conn_type)
        return resolve_deployment(connection)

    def dispatcher(self) -> Dispatcher:
        """Return the deployment's dispatcher; opens the ledger and reads the pools file.

        Raises:
            PoolsFileError: The pools file has mistakes.
            LedgerError: The ledger cannot be opened.
        """
        deployment = self.deployment
        pools = self._pools()
        away = tuple(sorted(pool.name for pool in pools if pool.backend != "local"))
        if away and deployment.keeps_checkpoints_by_default:
            _warn_of_local_checkpoints(deployment.store_url, away)
        return Dispatcher(
            pools=pools,
            ledger=Ledger.open(deployment.ledger_url),
            store_url=deployment.store_url,
            backend_of=self._backend,
            store_place=deployment.store_place,
            tables=tables_in(deployment.home / "tables"),
        )

    def _pools(self) -> tuple[Pool, ...]:
        """Read the pools file, and look whether the connections that it names exist."""
        path = self.deployment.pools_file
        pools = load_pools(path, backends=registry.names())
        named = {pool.connection for pool in pools if pool.connection is not None}
        missing = {name for name in named if not self._has_connection(name)}
        return load_pools(path, named - missing, backends=registry.names()) if missing else pools

    def _has_connection(self, name: str) -> bool:
        try:
            self.get_connection(name)
        except AirflowNotFoundException:
            return False
        return True

    def _backend(self, pool: Pool) -> Backend:
        named = pool.connection
        credentials = _credentials(self.get_connection(named)) if named is not None else None
        return registry.load(pool, home=self.deployment.home, connection=credentials)


def resolve_deployment(connection: AirflowConnection) -> Deployment:
    """Return the places that `connection` names, and the defaults for those that it does not."""
    extra = connection.extra_dejson
    project = Path(conf.get("core", "dags_folder")).parent
    home = conf.get("spillway", "home", fallback=None) or AIRFLOW_HOME / "spillway"
    home = Path(home).absolute()
    pools_file = extra.get("pools_file") or conf.get("spillway", "pools_file", fallback=None)
    return Deployment(
        home=home,
        pools_file=Path(pools_file or project / "include" / "pools.yaml"),
        ledger_url=_ledger_url(connection) or f"sqlite:///{quote(str(home / 'ledger.db'))}",
        store_url=extra.get("store_url") or _default_store(home),
        data=extra.get("data") or str(home / "data"),
        store_place=read_store_place(extra),
    )


def _default_store(home: Path) -> str:
    return (home / "checkpoints").as_uri()


@cache  # a dispatcher is opened often, by a trigger or a page
def _warn_of_local_checkpoints(store_url: str, pools: tuple[str, ...]) -> None:
    log.warning(
        "no checkpoint store is configured, so checkpoints go to %s: only this machine can write and resume from them,"
        " and jobs on %s can not. Set store_url in the connection's extra, such as s3://bucket/spillway",
        store_url,
        ", ".join(pools),
    )


def _ledger_url(connection: AirflowConnection) -> str | None:
    if not connection.host:
        return None
    login = quote(connection.login or "", safe="")
    password = f":{quote(connection.password, safe='')}" if connection.password else ""
    port = f":{connection.port}" if connection.port else ""
    return (
        f"postgresql+psycopg://{login}{password}@{connection.host}{port}"
        f"/{connection.schema or 'spillway'}"
    )


def _credentials(connection: AirflowConnection) -> Connection:
    return Connection(
        host=connection.host,
        port=connection.port,
        login=connection.login,
        password=connection.password,
        extra=connection.extra_dejson,
        client=client_of(connection.conn_type or "", connection.conn_id),
    )
