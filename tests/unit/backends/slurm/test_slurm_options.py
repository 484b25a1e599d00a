from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from spillway.backends.protocol import Connection
from spillway.backends.slurm.backend import SlurmBackend
from spillway.backends.slurm.options import SlurmOptions, read_options
from spillway.errors import SpecError
from spillway.model import Market, Pool, Resources

HERE = Path("/var/lib/spillway")


def pool(**options: Any) -> Pool:
    return Pool(
        name="colossus",
        backend="slurm",
        market=Market.PARTNER,
        slots=2,
        shape=Resources(),
        list_usd_per_hour=Decimal(1),
        options=options,
    )


def test_without_a_connection_the_folder_is_below_our_own() -> None:
    options = read_options(pool(), home=HERE, connection=None)
    assert options.folder == "/var/lib/spillway/slurm/colossus"


def test_a_cluster_elsewhere_needs_a_folder_of_its_own() -> None:
    with pytest.raises(SpecError, match="'colossus' needs the option folder"):
        read_options(pool(), home=HERE, connection=Connection(host="login.example"))


@pytest.mark.parametrize(
    ("option", "place"),
    [
        ({"partitoin": "a"}, "partitoin"),
        ({"partition": "--wrap=x"}, "partition"),
        ({"partition": "a\n#SBATCH --uid=root"}, "partition"),
        ({"folder": "relative"}, "folder"),
        ({"folder": "/scratch/%u"}, "folder"),
        ({"environment": {"A B": "1"}}, "environment"),
        ({"time_limit": "soon"}, "time_limit"),
        ({"room": "most"}, "room"),
        ({"accelerators": {"H100": "a b\n"}}, "accelerators.H100"),
    ],
    ids=str,
)
def test_a_mistake_names_pool_and_option(option: dict[str, Any], place: str) -> None:
    with pytest.raises(SpecError, match=rf"pool 'colossus' has a mistake: option {place}"):
        read_options(pool(**option), home=HERE, connection=None)


def test_times_are_written_as_in_iso_8601() -> None:
    options = read_options(pool(time_limit="PT12H"), home=HERE, connection=None)
    assert options.time_limit == timedelta(hours=12)


@pytest.mark.parametrize(
    ("options", "resources", "expected"),
    [
        ({}, Resources(), None),
        ({}, Resources(accelerator="H100", accelerator_count=8), "gpu:h100:8"),
        (
            {"accelerators": {"H100": "hopper"}},
            Resources(accelerator="H100", accelerator_count=2),
            "gpu:hopper:2",
        ),
        ({"gres": "gpu:4,nvme"}, Resources(accelerator="H100", accelerator_count=8), "gpu:4,nvme"),
    ],
    ids=["none", "by_name", "by_the_table", "as_given"],
)
def test_accelerators_become_generic_resources(
    options: dict[str, Any], resources: Resources, expected: str | None
) -> None:
    assert SlurmOptions(**options).gres_of(resources) == expected


def test_rest_needs_a_user_and_a_token() -> None:
    connection = Connection(host="https://slurm.example", login="spillway")
    with pytest.raises(SpecError, match="needs a login"):
        SlurmBackend(pool(folder="/shared"), home=HERE, connection=connection)


def test_a_host_that_is_no_url_is_said_so() -> None:
    connection = Connection(host="https://slurm example:x", login="spillway", password="a token")
    with pytest.raises(SpecError, match="no URL"):
        SlurmBackend(pool(folder="/shared"), home=HERE, connection=connection)
