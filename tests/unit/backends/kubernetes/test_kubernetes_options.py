from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from spillway.backends.kubernetes.backend import KubernetesBackend
from spillway.backends.kubernetes.options import read_options
from spillway.backends.protocol import Connection
from spillway.errors import SpecError
from spillway.model import Market, Pool, Resources


def pool(**options: Any) -> Pool:
    return Pool(
        name="gke",
        backend="kubernetes",
        market=Market.SPOT,
        slots=1,
        shape=Resources(),
        list_usd_per_hour=Decimal(1),
        options=options,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "option image"),
        ({"image": "a", "imgae": "b"}, "option imgae"),
        ({"image": "a", "namespace": "My_Space"}, "option namespace"),
        ({"image": "a", "queue": "A Queue"}, "option queue"),
        ({"image": "a", "kind": "cronjob"}, "option kind"),
        ({"image": "a", "labels": {"team": "a b"}}, "option labels"),
        ({"image": "a", "environment": {"1A": "x"}}, "option environment"),
        ({"image": "a", "environment": {"SPILLWAY_SUBMISSION": "x"}}, "option environment"),
        ({"image": "a", "volumes": [{"path": "/x"}]}, "option volumes"),
        ({"image": "a", "volumes": [{"path": "x", "claim": "c"}]}, "option volumes"),
        ({"image": "a", "volumes": [{"path": "/x", "nfs_server": "n"}]}, "nfs_path go together"),
        ({"image": "a", "ray_cluster": "shared"}, "needs `kind: rayjob`"),
        (
            {"image": "a", "kind": "rayjob", "ray_cluster": "shared", "queue": "ml"},
            "leave out queue",
        ),
        ({"image": "a", "scratch_gib": 0}, "option scratch_gib"),
        (
            {
                "image": "a",
                "environment": {"TOKEN": "x"},
                "secret_environment": {"TOKEN": {"secret": "s", "key": "k"}},
            },
            "TOKEN is in environment and in secret_environment",
        ),
    ],
    ids=str,
)
def test_a_mistake_names_pool_and_option(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match="'gke' has a mistake") as mistake:
        read_options(pool(**options), None)
    assert words in str(mistake.value)


def test_the_namespace_is_the_pools_then_the_connections() -> None:
    connection = Connection(extra={"namespace": "ml"})
    assert read_options(pool(image="a", namespace="own"), connection).namespace == "own"
    assert read_options(pool(image="a"), connection).namespace == "ml"
    assert read_options(pool(image="a"), None).namespace == "default"


@pytest.mark.parametrize("connection", [None, Connection(host="https://gke.example")], ids=str)
def test_a_pool_needs_a_connection_of_kubernetes(connection: Connection | None) -> None:
    with pytest.raises(SpecError, match="of the type kubernetes"):
        KubernetesBackend(pool(image="a"), home=Path(), connection=connection)
