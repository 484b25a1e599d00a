"""Where the checkpoint store is: whose network and whose law, which decides what moving and keeping state costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spillway.errors import SpecError
from spillway.placement.transfer import Place

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlace:
    """What is known of the place of a checkpoint store.

    Attributes:
        place: Provider and region, in the words of the pools file; None when unknown, and then moving state is not priced.
        jurisdiction: Whose law it is under, such as `EU`; None when unknown.
    """

    place: Place | None = None
    jurisdiction: str | None = None


UNKNOWN_PLACE: Final = StorePlace()


def read_store_place(extra: Mapping[str, object]) -> StorePlace:
    """Return the place that the keys `store_provider`, `store_region` and `store_jurisdiction` name.

    Raises:
        SpecError: One is not text, or a provider came without its region, or the other way round.
    """
    named = {key: extra.get(f"store_{key}") for key in ("provider", "region", "jurisdiction")}
    for key, value in named.items():
        if value is not None and not isinstance(value, str):
            raise SpecError(f"store_{key} is {value!r}; give text, such as the pools file has")
    provider, region, jurisdiction = (
        value if isinstance(value, str) else None for value in named.values()
    )
    if (provider is None) != (region is None):
        raise SpecError(
            "store_provider and store_region belong together: give both, or neither where moving state is free"
        )
    place = Place(provider=provider, region=region) if provider and region else None
    return StorePlace(place=place, jurisdiction=jurisdiction)
