"""A PostgreSQL server of one's own for the length of a test: real, empty, in a temporary folder, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, make_url

from spillway.testing.servers import NotStartedError, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS: Final = 60


def find_postgres() -> Path | None:
    """Return the folder with `initdb` and `pg_ctl`, the newest version's where there are several, or None."""
    on_path = shutil.which("initdb")
    packaged = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(packaged, key=lambda path: float(path.parent.parent.name))
    candidates = [Path(on_path)] if on_path else newest[-1:]
    return candidates[0].parent if candidates else None


@contextmanager
def postgres_server(binaries: Path, *, durable: bool = False) -> Iterator[str]:
    """Run a server on a free port of this machine; yield the URL of its first database.

    Args:
        binaries: What `find_postgres` returned.
        durable: Whether a commit waits for the disk, as it would in earnest; without, tests are faster.
    """
    user = _server_user()
    folder = Path(tempfile.mkdtemp(prefix="spillway-pg-"))
    if "user" in user:
        shutil.chown(folder, user=user["user"])
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        log = folder / f"{program}.log"
        command = [str(binaries / program), "--pgdata", str(data), *arguments]
        with log.open("w") as output:
            done = subprocess.run(  # noqa: S603 - the server's own programs
                command, cwd=folder, stdout=output, stderr=output, check=False, **user
            )
        if done.returncode != 0:
            raise NotStartedError(f"{' '.join(command)} failed:\n{log.read_text()}")

    try:
        run("initdb", "--username=spillway", "--auth=trust", "--no-sync", "--encoding=UTF8")
        port = free_port()
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync={'on' if durable else 'off'}"
        start = ("--wait", "--silent", f"--timeout={_START_SECONDS}", f"--log={folder / 'log'}")
        run("pg_ctl", "start", *start, f"--options={settings}")
        try:
            yield f"postgresql+psycopg://spillway@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "--wait", "--mode=immediate")
    finally:
        shutil.rmtree(folder)


@contextmanager
def fresh_database(server_url: str, name: str) -> Iterator[str]:
    """Make an empty database on the server; yield its URL, and drop it afterwards with whatever still uses it."""
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        yield make_url(server_url).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        engine.dispose()


def _server_user() -> dict[str, Any]:
    """Return whom to run the server as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    import grp
    import pwd

    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    group = grp.getgrgid(entry.pw_gid).gr_name
    return {"user": entry.pw_name, "group": group, "extra_groups": []}
