"""The page about Ray: its example loads, and no option and no end is missing from it."""

from __future__ import annotations

import re
from pathlib import Path

from spillway.backends.protocol import Connection
from spillway.backends.ray_jobs.backend import RayBackend
from spillway.backends.ray_jobs.failures import ENTRY_POINT_FAILED, ERROR_TYPES
from spillway.backends.ray_jobs.options import RayOptions
from spillway.catalog.pools_file import load_pools

PAGE = (Path(__file__).parents[4] / "docs" / "backends" / "ray.md").read_text()


def test_the_example_is_a_pool_that_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "pools.yaml"
    path.write_text(example)
    (pool,) = load_pools(path, ["lab_ray"], backends=["ray"])
    RayBackend(pool, home=tmp_path, connection=Connection(host="ray.example", password="a token"))


def test_every_option_is_on_the_page() -> None:
    (table,) = re.findall(r"\| option \| meaning \|\n(.*?)\n\n", PAGE, re.DOTALL)
    named = {
        name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(RayOptions.model_fields)


def test_every_end_of_a_job_is_on_the_page() -> None:
    for name in ERROR_TYPES.keys() - {ENTRY_POINT_FAILED}:
        assert f"`{name}`" in PAGE, name
