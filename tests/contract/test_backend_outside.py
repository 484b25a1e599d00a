"""A backend from outside of the package: the example of plain SSH hosts, joined by its entry point, against a real sshd."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import require
from patience import LOOK_SECONDS, PATIENCE_SECONDS
from spillway.backends import registry
from spillway.backends.protocol import Connection, SupportsListing
from spillway.catalog.pools_file import load_pools
from spillway.errors import AccessError, SpecError, TransientError
from spillway.model import JobEvent, Market, Pool, Resources
from spillway.testing.backend_suite import BackendContract, Behaviour, World
from spillway.testing.ssh_server import INSTALL, find_sshd, ssh_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.backends.protocol import Backend, Job
    from spillway.model import Observation

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ssh_hosts"
ENTRY_POINTS = Path(__file__).parents[1] / "entry_points"
FUNCTIONS = {
    Behaviour.SUCCEEDS: "succeed",
    Behaviour.FAILS_WITH_3: "exit_with_3",
    Behaviour.RUNS_ON: "run_on",
    Behaviour.PRINTS: "print_text",
    Behaviour.IS_PREEMPTED: "preempt_itself",
}


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Build the example and install it beside Spillway, a distribution of its own."""
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(site), str(EXAMPLE)], capture_output=True, text=True, check=False
    )
    require(done.returncode == 0, f"{EXAMPLE} cannot be installed: {done.stderr}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield
    sys.modules.pop("spillway_ssh_hosts", None)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    program = find_sshd()
    require(program, INSTALL)
    assert program is not None
    with ssh_server(program, tmp_path_factory.mktemp("sshd")) as connection:
        yield connection


class SshHostWorld(World):
    def __init__(self, folder: Path, host: Connection) -> None:
        self.folder = folder
        self.host = host
        self.pool = Pool(
            name="contract",
            backend="ssh_host",
            market=Market.ON_DEMAND,
            slots=self.slots,
            shape=Resources(),
            list_usd_per_hour=Decimal(1),
            options={
                "folder": str(folder / "it's a folder"),
                "python": sys.executable,
                "python_path": str(ENTRY_POINTS),
            },
        )

    def connect(self) -> Backend:
        return registry.load(self.pool, home=self.folder, connection=self.host)

    def entry_point(self, behaviour: Behaviour) -> str:
        return f"sample_jobs:{FUNCTIONS[behaviour]}"

    def store_url(self) -> str:
        return (self.folder / "store").as_uri()

    def wait(self, backend: Backend, job: Job, events: frozenset[JobEvent]) -> Observation:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (seen := backend.observe([job])[job.key]).event not in events:
            assert time.monotonic() < deadline, f"{job.key} is still {seen}"
            time.sleep(LOOK_SECONDS)
        return seen

    def release_all(self) -> None:
        backend = self.connect()
        assert isinstance(backend, SupportsListing)
        for job in backend.list_jobs():
            backend.release(job)


class TestSshHostBackend(BackendContract):
    @pytest.fixture
    def world(self, tmp_path: Path, host: Connection) -> Iterator[SshHostWorld]:
        world = SshHostWorld(tmp_path, host)
        yield world
        world.release_all()

    def test_what_a_key_holds_stays_data(self, world: SshHostWorld, backend: Backend) -> None:
        key = f"dag/'; touch {world.folder}/done; '$(touch {world.folder}/done)/train/-1/1"
        job = backend.submit(world.submission(Behaviour.RUNS_ON, key))
        assert backend.observe([job])[key].event is JobEvent.STARTED
        assert not (world.folder / "done").exists()

    def test_a_host_that_nobody_vouched_for_is_refused(
        self, host: Connection, tmp_path: Path
    ) -> None:
        world = SshHostWorld(tmp_path, host)
        submission = world.submission(Behaviour.SUCCEEDS)
        (tmp_path / "empty").touch()
        world.host = replace(
            world.host, extra={**world.host.extra, "known_hosts": str(tmp_path / "empty")}
        )
        stranger = world.connect()
        with pytest.raises(AccessError, match="not in known_hosts; correct"):
            stranger.submit(submission)


def test_the_example_is_an_outside_backend_that_pools_may_name() -> None:
    assert "ssh_host" in registry.names() - set(registry.TABLE)
    assert version("spillway-ssh-hosts") == "0.1"
    lines = (EXAMPLE / "spillway_ssh_hosts.py").read_text().splitlines()
    assert len(lines) < 200


def test_the_pool_of_the_page_is_one_of_the_example(tmp_path: Path) -> None:
    page = (EXAMPLE.parents[1] / "adding-a-backend.md").read_text()
    (text,) = re.findall(r"```yaml\n# pools.yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pools.yaml").write_text(text)
    (pool,) = load_pools(tmp_path / "pools.yaml", ["lab_host"], backends=registry.names())
    backend = registry.load(pool, home=tmp_path, connection=Connection(host="lab.example"))
    assert isinstance(backend, SupportsListing)


def test_a_host_that_does_not_answer_says_nothing_of_its_jobs(
    tmp_path: Path, host: Connection
) -> None:
    world = SshHostWorld(tmp_path, replace(host, port=1))
    with pytest.raises(TransientError, match="did not answer"):
        world.connect().submit(world.submission(Behaviour.SUCCEEDS))


def test_a_mistake_in_the_options_is_named(tmp_path: Path, host: Connection) -> None:
    world = SshHostWorld(tmp_path, host)
    for pool, connection, message in (
        (replace(world.pool, options={"foldr": "x"}), host, "unknown option 'foldr'"),
        (world.pool, None, "needs `connection:`"),
    ):
        with pytest.raises(SpecError, match=message):
            registry.load(pool, home=tmp_path, connection=connection)
