"""No exception of httpx leaves a client as it is, whatever comes with its next version."""

from __future__ import annotations

import httpx
import pytest

from spillway.backends.ray_jobs import client as ray
from spillway.backends.skypilot import client as skypilot
from spillway.backends.slurm import rest as slurm
from vendors import exceptions_of


@pytest.mark.parametrize("client", [ray, skypilot, slurm], ids=lambda module: module.__name__)
def test_every_exception_of_httpx_is_translated(client: object) -> None:
    errors: tuple[type[Exception], ...] = client._CLIENT_ERRORS  # type: ignore[attr-defined]  # the three have it
    found = exceptions_of(httpx)
    assert httpx.ReadTimeout in found
    assert [kind for kind in found if not issubclass(kind, errors)] == []
