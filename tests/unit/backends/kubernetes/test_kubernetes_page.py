"""The page about Kubernetes: its example loads, and no option or state is missing from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kubernetes import client

from spillway.backends.kubernetes import parse
from spillway.backends.kubernetes import pods as pods_of
from spillway.backends.kubernetes.backend import KubernetesBackend
from spillway.backends.kubernetes.options import ACCELERATORS, KubernetesOptions
from spillway.backends.protocol import Connection
from spillway.catalog.pools_file import load_pools

if TYPE_CHECKING:
    from spillway.model import JobEvent

PAGE = (Path(__file__).parents[4] / "docs" / "backends" / "kubernetes.md").read_text()
EXAMPLE, _ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_a_pool_that_works(tmp_path: Path) -> None:
    path = tmp_path / "pools.yaml"
    path.write_text(EXAMPLE)
    (pool,) = load_pools(path, ["gke"], backends=["kubernetes"])
    connection = Connection(client=client.ApiClient(client.Configuration()))
    KubernetesBackend(pool, home=tmp_path, connection=connection)


def test_every_option_is_on_the_page() -> None:
    (table,) = re.findall(r"\| option \| meaning \|\n(.*?)\n\n", PAGE, re.DOTALL)
    named = {
        name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(KubernetesOptions.model_fields)


def test_every_accelerator_of_the_table_is_on_the_page() -> None:
    for name, accelerator in ACCELERATORS.items():
        assert f"`{name}`" in PAGE
        assert f"`{accelerator.resource}`" in PAGE


def test_every_end_of_a_job_is_on_the_page() -> None:
    tables: list[dict[str, JobEvent | None]] = [
        dict(parse.CONDITIONS),
        dict(parse.RAY_JOBS),
        dict(parse.RAY_DEPLOYMENTS),
    ]
    for table in tables:
        for state, event in table.items():
            if event is not None and event.value not in {"submitted", "started"}:
                assert f"`{state}`" in PAGE, state
    for reason in [*pods_of.DISRUPTIONS, *pods_of.BLOCKED, *pods_of.PULLING]:
        assert f"`{reason}`" in PAGE, reason
