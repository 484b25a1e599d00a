"""The page about Slurm: its example loads, and no option is missing from it."""

from __future__ import annotations

import re
from pathlib import Path

from spillway.backends.protocol import Connection
from spillway.backends.slurm.backend import SlurmBackend
from spillway.backends.slurm.options import SlurmOptions
from spillway.backends.slurm.parse import EVENTS
from spillway.catalog.pools_file import load_pools

PAGE = (Path(__file__).parents[4] / "docs" / "backends" / "slurm.md").read_text()


def test_the_example_is_a_pool_that_works(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "pools.yaml"
    path.write_text(example)
    (pool,) = load_pools(path, ["colossus_slurm"], backends=["slurm"])
    connection = Connection(host="https://slurm.example", login="spillway", password="a token")
    SlurmBackend(pool, home=tmp_path, connection=connection)


def test_every_option_is_on_the_page() -> None:
    (table,) = re.findall(r"\| option \| meaning \|\n(.*?)\n\n", PAGE, re.DOTALL)
    named = {
        name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(SlurmOptions.model_fields)


def test_every_end_of_a_job_is_on_the_page() -> None:
    for state, event in EVENTS.items():
        if event is not None and event.value not in {"submitted", "started"}:
            assert f"`{state}`" in PAGE, state
