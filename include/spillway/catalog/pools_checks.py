"""Mistakes of a pools file that take more than one value to see.

The checks look at the plain data, so that they speak up beside the mistakes of single values and not only after those
are gone. What has the wrong type is left to the models in `pools_schema.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from spillway.catalog.pools_problems import Problem, listed, nearest
from spillway.catalog.pools_schema import to_decimal, to_instant
from spillway.errors import SpecError
from spillway.model import Market
from spillway.placement.fractions import mig_share

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from spillway.catalog.yaml_source import Place


LONGEST_MONTH_HOURS: Final = 744


def cross_checks(
    data: dict[str, Any], connections: Collection[str] | None, backends: Collection[str] | None
) -> Iterator[Problem]:
    """Yield every mistake of a pools file that takes more than one value to see.

    `connections` and `backends` are the names there are; None leaves them unchecked.
    """
    pools = data.get("pools")
    seen: dict[str, int] = {}
    for index, pool in enumerate(pools if isinstance(pools, list) else []):
        if not isinstance(pool, dict):
            continue
        place: Place = ("pools", index)
        yield from _name_taken(pool, place, seen, index)
        yield from _commitment_for_market(pool, place)
        yield from _minimum_within_reach(pool, place)
        yield from _period_in_order(pool, place)
        yield from _accelerators(pool, place)
        yield from _slices(pool, place)
        yield from _one_price(pool, place)
        yield from _quota_known(pool, place, data.get("quotas"))
        yield from _known(pool, (*place, "backend"), backends, "backend", "install its extra")
        yield from _known(
            pool,
            (*place, "connection"),
            connections,
            "connection",
            "add it under Admin, Connections",
        )


def _name_taken(
    pool: dict[str, Any], place: Place, seen: dict[str, int], index: int
) -> Iterator[Problem]:
    name = pool.get("name")
    if not isinstance(name, str):
        return
    if name in seen:
        yield Problem(
            place=(*place, "name"),
            what=f"{name!r} is the name of pools[{seen[name]}] too",
            remedy="give every pool a name of its own",
        )
    seen.setdefault(name, index)


def _commitment_for_market(pool: dict[str, Any], place: Place) -> Iterator[Problem]:
    market = pool.get("market")
    if not isinstance(market, str) or market not in set(Market):
        return
    has_one = pool.get("commitment") is not None
    if Market(market).is_committed and not has_one:
        yield Problem(
            place=place,
            what=f"a {market} pool has no commitment",
            remedy="say what is owed in `commitment:`, or make it on_demand",
        )
    if has_one and not Market(market).is_committed:
        yield Problem(
            place=(*place, "commitment"),
            what=f"nothing is owed for {market} capacity",
            remedy="take it out, or make the pool reserved or partner",
        )


def _minimum_within_reach(pool: dict[str, Any], place: Place) -> Iterator[Problem]:
    slots, commitment = pool.get("slots"), pool.get("commitment")
    if not isinstance(slots, int) or not isinstance(commitment, dict) or slots <= 0:
        return
    if commitment.get("kind") == "prepaid":  # bought for a period of its own
        return
    try:
        owed = to_decimal(commitment.get("slot_hours"))
    except ValueError:
        return
    most = slots * LONGEST_MONTH_HOURS
    if owed > most:
        yield Problem(
            place=(*place, "commitment", "slot_hours"),
            what=f"{owed} hours are more than {slots} slot(s) have in a month ({most})",
            remedy="raise slots, or correct the hours",
        )


def _period_in_order(pool: dict[str, Any], place: Place) -> Iterator[Problem]:
    commitment = pool.get("commitment")
    if not isinstance(commitment, dict):
        return
    try:
        starts_at, ends_at = (to_instant(commitment.get(key)) for key in ("starts_at", "ends_at"))
    except ValueError:
        return
    if ends_at <= starts_at:
        yield Problem(
            place=(*place, "commitment", "ends_at"),
            what="is not after starts_at",
            remedy="give the first instant on which nothing of it is left",
        )


def _accelerators(pool: dict[str, Any], place: Place) -> Iterator[Problem]:
    shape = pool.get("shape")
    if not isinstance(shape, dict):
        return
    model, count = shape.get("accelerator"), shape.get("accelerator_count")
    if count and model is None:
        yield Problem(
            place=(*place, "shape", "accelerator_count"),
            what="counts accelerators of no model",
            remedy="add `accelerator:`, such as H100",
        )
    if model is not None and not count:
        yield Problem(
            place=(*place, "shape", "accelerator"),
            what="names an accelerator of which there is none",
            remedy="add `accelerator_count: 1`, or as many as there are",
        )


def _slices(pool: dict[str, Any], place: Place) -> Iterator[Problem]:
    shape = pool.get("shape")
    profile = shape.get("mig_profile") if isinstance(shape, dict) else None
    if not isinstance(shape, dict) or not isinstance(profile, str):
        return
    model, what = shape.get("accelerator"), None
    if shape.get("accelerator_count") != 1 or shape.get("accelerator_fraction", 1) != 1:
        what = "divides slots that do not have one whole accelerator each"
    elif isinstance(model, str):
        try:
            mig_share(model, profile)
        except SpecError as error:
            what = str(error)
    if what is not None:
        yield Problem(
            place=(*place, "shape", "mig_profile"),
            what=what,
            remedy="correct the profile, or give each slot one accelerator that MIG can divide",
        )


def _one_price(pool: dict[str, Any], place: Place) -> Iterator[Problem]:
    told, looked_up = (pool.get(key) is not None for key in ("list_usd_per_hour", "price_list"))
    if not told and not looked_up:
        yield Problem(
            place=place,
            what="has no list_usd_per_hour",
            remedy="add `list_usd_per_hour:`, or `price_list:` to read it from a list",
        )
    if told and looked_up:
        yield Problem(
            place=(*place, "price_list"),
            what="is beside list_usd_per_hour",
            remedy="keep one of the two",
        )


def _quota_known(pool: dict[str, Any], place: Place, quotas: object) -> Iterator[Problem]:
    known = quotas if isinstance(quotas, dict) else {}
    name = pool.get("quota")
    if isinstance(name, str) and name not in known:
        yield Problem(
            place=(*place, "quota"),
            what=f"there is no quota {name!r}",
            remedy=nearest(name, known) or "add it to `quotas:`, with how many slots it allows",
        )


def _known(
    pool: dict[str, Any], place: Place, names: Collection[str] | None, noun: str, remedy: str
) -> Iterator[Problem]:
    name = pool.get(noun)
    if names is None or not isinstance(name, str) or name in names:
        return
    yield Problem(
        place=place,
        what=f"there is no {noun} {name!r}",
        remedy=nearest(name, names) or f"{remedy}, or use one of: {listed(names)}",
    )
