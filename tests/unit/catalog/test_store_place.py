"""Where the checkpoint store is, as a connection says it."""

from __future__ import annotations

import pytest

from spillway.catalog.store_place import UNKNOWN_PLACE, StorePlace, read_store_place
from spillway.errors import SpecError
from spillway.placement.transfer import Place


def test_nothing_said_is_an_unknown_place() -> None:
    assert read_store_place({"provider": "aws", "pools_file": "pools.yaml"}) == UNKNOWN_PLACE


def test_a_place_has_provider_region_and_law() -> None:
    said = {"store_provider": "aws", "store_region": "eu-west-1", "store_jurisdiction": "EU"}
    place = Place(provider="aws", region="eu-west-1")
    assert read_store_place(said) == StorePlace(place=place, jurisdiction="EU")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"store_provider": "aws"}, "belong together"),
        ({"store_region": "eu-west-1"}, "belong together"),
        ({"store_jurisdiction": 7}, "store_jurisdiction is 7"),
    ],
)
def test_half_a_place_is_refused(said: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_store_place(said)
