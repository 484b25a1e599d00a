from __future__ import annotations

from decimal import Decimal
from importlib.metadata import EntryPoint, EntryPoints
from typing import TYPE_CHECKING

import pytest

from spillway.backends import registry
from spillway.backends.local.backend import LocalBackend
from spillway.errors import SpecError
from spillway.model import Market, Pool, Resources

if TYPE_CHECKING:
    from pathlib import Path


def pool(backend: str) -> Pool:
    return Pool(
        name="mine",
        backend=backend,
        market=Market.SPOT,
        slots=1,
        shape=Resources(),
        list_usd_per_hour=Decimal(1),
    )


def test_the_local_backend_is_known(tmp_path: Path) -> None:
    assert isinstance(registry.load(pool("local"), home=tmp_path), LocalBackend)


def test_an_unknown_backend_is_told_which_are_known(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"pool 'mine' .*'locl'.*known are .*local"):
        registry.load(pool("locl"), home=tmp_path)


def test_a_missing_extra_says_what_to_install(tmp_path: Path) -> None:
    table = {"slurm": registry.Row(target="no_such_client.backend:Slurm", extra="slurm")}
    with pytest.raises(SpecError, match=r"needs no_such_client: pip install 'spillway\[slurm\]'"):
        registry.load(pool("slurm"), home=tmp_path, table=table)


def test_a_backend_that_is_broken_is_not_taken_for_a_missing_extra(tmp_path: Path) -> None:
    table = {"broken": registry.Row(target="spillway.backends.protocol:NoSuchClass", extra="x")}
    with pytest.raises(AttributeError):
        registry.load(pool("broken"), home=tmp_path, table=table)


def test_backends_join_through_the_entry_point_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = EntryPoints(
        [EntryPoint("mine", "spillway.backends.local.backend:LocalBackend", registry.GROUP)]
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: joined.select(group=group))
    assert isinstance(registry.load(pool("mine"), home=tmp_path), LocalBackend)


def test_every_row_of_the_table_loads(tmp_path: Path) -> None:
    """A pool that says nothing is wrong for some, and then the backend says what it needs; none lacks a module."""
    for name in sorted(registry.TABLE):
        said = ""
        try:
            assert registry.load(pool(name), home=tmp_path)
        except SpecError as error:
            said = str(error)
        assert "pip install" not in said, name
