"""What moving and keeping a task's state costs: egress by provider and region, storage, and the time to read it from afar.

Every start reads the inputs and the last checkpoint out of the store, every checkpoint is written into it. A pool near
the store does that for nothing; one across the world may cost more in egress than in machines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.model import Offer, TaskSpec
    from spillway.placement.recovery import Course

# The newest two are kept, so that one that turns out damaged costs an interval and not the run.
CHECKPOINTS_KEPT: Final = 2

# What one machine reads from another region or provider, 5 Gbit/s: an assumption, one figure for every pair. AWS allows as much
# beyond its own region to a machine of fewer than 32 vCPUs, and half of its bandwidth to a larger one, if that is more; how fast
# the store and the line between are is not known. Source: AWS, "Amazon EC2 instance network bandwidth".
FAR_GIB_PER_SECOND: Final = 5e9 / 8 / 2**30

_HOURS_A_MONTH: Final = 730
_FREE: Final = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where machines or objects are, in the provider's words: `aws`, `us-east-1`."""

    provider: str
    region: str


class PriceZone(StrEnum):
    """A part of the world inside of which a provider's transfer prices are the same."""

    NORTH_AMERICA = "north_america"
    EUROPE = "europe"
    ASIA_PACIFIC = "asia_pacific"
    SOUTH_AMERICA = "south_america"
    MIDDLE_EAST_AFRICA = "middle_east_africa"


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """US dollars for each GiB that leaves a region, at the first tier of a month.

    Attributes:
        within: To another region of the provider in the same zone.
        abroad: To a region of the provider in another zone.
        internet: To anybody else.
    """

    within: Decimal
    abroad: Decimal
    internet: Decimal


def _egress(within: str, abroad: str, internet: str) -> Egress:
    return Egress(within=Decimal(within), abroad=Decimal(abroad), internet=Decimal(internet))


def _free_egress() -> dict[PriceZone, Egress]:
    return dict.fromkeys(PriceZone, _egress("0", "0", "0"))


# Public prices of the first paid tier, as known in early 2026; one figure for each zone, where regions of it differ the
# most common one. Approximate: single regions and pairs are off by up to a third (us-east-1 to us-east-2 is half), free
# allowances, discounts and later tiers are left out, and a GB of a price list is taken for a GiB, as it is billed.
# Sources: AWS, Amazon EC2 on-demand pricing, "Data transfer" (within one region S3 to EC2 is free); Google Cloud, VPC
# network pricing, premium tier, "inter-region" and "internet"; Microsoft Azure, Bandwidth pricing, zones 1 to 3;
# Oracle, Networking pricing; the others advertise that egress is free.
EGRESS: Final = MappingProxyType(
    {
        "aws": {
            PriceZone.NORTH_AMERICA: _egress("0.02", "0.02", "0.09"),
            PriceZone.EUROPE: _egress("0.02", "0.02", "0.09"),
            PriceZone.ASIA_PACIFIC: _egress("0.09", "0.09", "0.12"),
            PriceZone.SOUTH_AMERICA: _egress("0.138", "0.138", "0.15"),
            PriceZone.MIDDLE_EAST_AFRICA: _egress("0.147", "0.147", "0.154"),
        },
        "gcp": {
            PriceZone.NORTH_AMERICA: _egress("0.02", "0.05", "0.12"),
            PriceZone.EUROPE: _egress("0.02", "0.05", "0.12"),
            PriceZone.ASIA_PACIFIC: _egress("0.08", "0.08", "0.12"),
            PriceZone.SOUTH_AMERICA: _egress("0.14", "0.14", "0.12"),
            PriceZone.MIDDLE_EAST_AFRICA: _egress("0.08", "0.11", "0.12"),
        },
        "azure": {
            PriceZone.NORTH_AMERICA: _egress("0.02", "0.05", "0.087"),
            PriceZone.EUROPE: _egress("0.02", "0.05", "0.087"),
            PriceZone.ASIA_PACIFIC: _egress("0.08", "0.08", "0.12"),
            PriceZone.SOUTH_AMERICA: _egress("0.16", "0.16", "0.181"),
            PriceZone.MIDDLE_EAST_AFRICA: _egress("0.08", "0.08", "0.12"),
        },
        "oci": dict.fromkeys(PriceZone, _egress("0.0085", "0.0085", "0.0085")),
        "cloudflare": _free_egress(),
        "coreweave": _free_egress(),
        "lambda": _free_egress(),
        "runpod": _free_egress(),
    }
)

# Standard object storage in the provider's first regions. Sources: the vendors' pages for S3 Standard, Cloud Storage
# Standard, Blob Storage hot LRS, Object Storage Standard, R2; as known in early 2026.
STORAGE_USD_PER_GIB_MONTH: Final = MappingProxyType(
    {
        "aws": Decimal("0.023"),
        "gcp": Decimal("0.020"),
        "azure": Decimal("0.018"),
        "oci": Decimal("0.0255"),
        "cloudflare": Decimal("0.015"),
    }
)

# The first word that a region's name contains decides; `australia` contains `us`.
_ZONE_WORDS: Final = (
    *((word, PriceZone.SOUTH_AMERICA) for word in ("southamerica", "sa-", "brazil", "chile")),
    *(
        (word, PriceZone.MIDDLE_EAST_AFRICA)
        for word in ("africa", "af-", "me-", "il-", "uae", "qatar", "israel")
    ),
    *(
        (word, PriceZone.ASIA_PACIFIC)
        for word in ("australia", "asia", "ap-", "japan", "korea", "india", "newzealand")
    ),
    *(
        (word, PriceZone.EUROPE)
        for word in (
            *("eu-", "europe", "uk", "france", "germany", "italy", "norway", "poland"),
            *("spain", "sweden", "switzerland", "austria", "belgium", "denmark"),
        )
    ),
    *((word, PriceZone.NORTH_AMERICA) for word in ("us", "ca-", "canada", "mx-", "mexico")),
    ("america", PriceZone.NORTH_AMERICA),
)


def with_transfer_prices(offers: Iterable[Offer], store: Place) -> tuple[Offer, ...]:
    """Return `offers` with how far `store` is from each: what reading, writing and keeping a GiB costs, and whether it is elsewhere."""
    kept = STORAGE_USD_PER_GIB_MONTH.get(store.provider, _FREE)
    priced: list[Offer] = []
    for offer in offers:
        machines = Place(provider=offer.provider or offer.backend, region=offer.region)
        priced.append(
            replace(
                offer,
                restore_usd_per_gib=egress_usd_per_gib(store, machines),
                save_usd_per_gib=egress_usd_per_gib(machines, store),
                storage_usd_per_gib_month=kept,
                is_far_from_store=machines != store,
            )
        )
    return tuple(priced)


def egress_usd_per_gib(source: Place, target: Place) -> Decimal:
    """Return what a GiB costs that leaves `source` for `target`; what arrives is free everywhere.

    A provider that is not in the table, such as a cluster of one's own, is taken to charge nothing. A region whose part
    of the world cannot be told from its name is charged as its provider's dearest.
    """
    rates = EGRESS.get(source.provider)
    if rates is None or source == target:
        return _FREE
    here = price_zone(source.region)
    if source.provider != target.provider:
        return rates[here].internet if here else max(rate.internet for rate in rates.values())
    if here is None:
        return max(rate.abroad for rate in rates.values())
    there = price_zone(target.region)
    return rates[here].within if here is there else rates[here].abroad


def price_zone(region: str) -> PriceZone | None:
    """Return the part of the world that a region's name tells; None when it tells none."""
    return next((zone for word, zone in _ZONE_WORDS if word in region.lower()), None)


def restore_time(gib: float, offer: Offer) -> timedelta:
    """Return how much longer a start on `offer` takes for the `gib` that it reads than beside the store."""
    return timedelta(seconds=gib / FAR_GIB_PER_SECOND if offer.is_far_from_store else 0.0)


def transfer_usd(task: TaskSpec, offer: Offer, course: Course) -> Decimal:
    """Return what moving and keeping the state of `task` is expected to cost in a run on `offer`, in US dollars.

    Each start, the first too, reads the inputs and one checkpoint, on every node. Each checkpoint is written whole, by one
    of them: one that uploads only what has changed costs less.
    """
    starts = (1 + course.preemptions) * task.nodes
    restored = starts * (task.input_gib + task.state_gib)
    saved = course.checkpoints * task.state_gib
    kept = CHECKPOINTS_KEPT * task.state_gib if task.checkpoints else 0.0
    months = course.leased.total_seconds() / 3600 / _HOURS_A_MONTH
    return (
        Decimal(restored) * offer.restore_usd_per_gib
        + Decimal(saved) * offer.save_usd_per_gib
        + Decimal(kept * months) * offer.storage_usd_per_gib_month
    )
