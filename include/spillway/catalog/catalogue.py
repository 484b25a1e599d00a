"""Price lists as a table of offers: what could be leased from every provider, priced, with what is odd about it.

What a price list does not tell, how often spot capacity is taken back or how long a machine takes to start, is in the terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import numpy as np

from spillway.catalog.google_nodes import to_nodes
from spillway.catalog.price_list import COLUMNS, PriceList, parse_price_list
from spillway.model import Market, Offer, Resources
from spillway.placement.columns import MANY, NEVER_US, Columns, microseconds
from spillway.placement.offer_table import OfferTable
from spillway.placement.sanity import Doubt, Quotes, doubts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

GOOGLE: Final = "gcp"
_MARKETS: Final = (Market.ON_DEMAND, Market.SPOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What offers of a catalogue have in common, because price lists do not tell it.

    Attributes:
        backend: Who is to lease them.
        slots: How many leases of one machine and place to reckon with.
        spot_preemptions_per_hour: None for the prior of spot markets.
        speeds: Speed of a machine with one accelerator of a model; 1 for those that are not named.
        jurisdictions: By shell pattern of regions, whose law they are under; the first that matches counts.
        store_jurisdiction: Whose law the checkpoint store is under.
        priced_at: When the lists were told; None leaves their age unchecked.
        last_launches: By pool, when a lease of it last started.
    """

    backend: str = "skypilot"
    slots: int = 100
    spot_preemptions_per_hour: float | None = None
    restart_overhead: timedelta = timedelta(minutes=5)
    grace_period: timedelta = timedelta(seconds=30)
    speeds: Mapping[str, float] = field(default_factory=dict[str, float])
    jurisdictions: Mapping[str, str] = field(default_factory=dict[str, str])
    store_jurisdiction: str | None = None
    priced_at: datetime | None = None
    last_launches: Mapping[str, datetime] = field(default_factory=dict[str, datetime])


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """Nodes of one provider, with the doubts about each price, as numbers of `Doubt`."""

    nodes: PriceList
    on_demand_doubts: Ints
    spot_doubts: Ints


def quoted(listed: PriceList) -> Quoted:
    """Return what can be leased of a price list. A node has the doubts about the rows it is priced from, and its own."""
    if listed.provider != GOOGLE:
        of_list, of_spot = doubts(_quotes(listed))
        return Quoted(nodes=listed, on_demand_doubts=of_list, spot_doubts=of_spot)
    nodes, first, second = to_nodes(listed)
    own = doubts(_quotes(nodes))
    of_list, of_spot = (
        mine | rows[first] | np.where(second >= 0, rows[second], 0)
        for mine, rows in zip(own, doubts(_quotes(listed)), strict=True)
    )
    return Quoted(nodes=nodes, on_demand_doubts=of_list, spot_doubts=of_spot)


def make_catalogue(lists: Iterable[PriceList], terms: Terms | None = None) -> OfferTable:
    """Return the offers of the price lists: one for each price that there is, on demand and on spot."""
    rows = _Rows([quoted(one) for one in lists], terms or Terms())
    return OfferTable(rows.columns(), rows)


class _Rows:
    """The offers of a catalogue as columns, and each as a whole when it is needed."""

    def __init__(self, lists: Sequence[Quoted], terms: Terms) -> None:
        self._terms = terms
        self._lists = lists
        self._all = _concatenated([one.nodes for one in lists])
        prices = (self._all.on_demand, self._all.spot)
        found = (
            np.concatenate([np.zeros(0, np.int64), *(one.on_demand_doubts for one in lists)]),
            np.concatenate([np.zeros(0, np.int64), *(one.spot_doubts for one in lists)]),
        )
        priced = [np.flatnonzero(np.isfinite(price)) for price in prices]
        self._node = np.concatenate(priced)
        self._market = np.repeat(np.arange(2), [len(rows) for rows in priced])
        self._usd = np.concatenate([p[rows] for p, rows in zip(prices, priced, strict=True)])
        self._usd = np.round(self._usd, 6)
        self._doubts = np.concatenate([d[rows] for d, rows in zip(found, priced, strict=True)])
        self._provider = np.repeat(np.arange(len(lists)), [len(one.nodes) for one in lists])
        self._region_of, self._regions = _numbered(self._all.region.tolist())
        self._law = [self._jurisdiction(region) for region in self._regions]

    def pool(self, row: int) -> str:
        """Return the name of the pool of `row`: provider, machine, place and market."""
        node = self._node[row]
        machine, accelerator = self._all.instance[node], self._all.accelerator[node]
        if accelerator:
            machine += f"+{self._all.accelerator_count[node]:g}x{accelerator}"
        provider = self._lists[self._provider[node]].nodes.provider
        return f"{provider}:{machine}:{self._all.zone[node]}:{_MARKETS[self._market[row]]}"

    def offer(self, row: int) -> Offer:
        """Return the offer of `row`."""
        node, terms, pool = self._node[row], self._terms, self.pool(row)
        nodes, market = self._all, _MARKETS[self._market[row]]
        usd, listed = (Decimal(f"{p:.6f}") for p in (self._usd[row], nodes.on_demand[node]))
        count, accelerator = float(nodes.accelerator_count[node]), nodes.accelerator[node] or None
        return Offer(
            pool=pool,
            backend=terms.backend,
            provider=self._lists[self._provider[node]].nodes.provider,
            market=market,
            region=nodes.region[node],
            shape=Resources(
                cpus=_known(nodes.cpus[node]),
                memory_gib=_known(nodes.memory_gib[node]),
                accelerator=accelerator,
                accelerator_count=int(np.ceil(count)),
                accelerator_fraction=_fraction(count),
            ),
            free_slots=terms.slots,
            cooling_down=False,
            marginal_usd_per_hour=usd,
            effective_usd_per_hour=usd,
            list_usd_per_hour=listed if listed.is_finite() else usd,
            price_reason="list price" if market is Market.ON_DEMAND else "spot price",
            preemptions_per_hour=self._hazard(market),
            restart_overhead=terms.restart_overhead,
            grace_period=terms.grace_period,
            speed=terms.speeds.get(accelerator or "", 1.0),
            architecture=nodes.architecture[node] or None,
            jurisdiction=self._law[self._region_of[node]],
            store_jurisdiction=terms.store_jurisdiction,
            price_doubts=Doubt(int(self._doubts[row])).words,
            priced_at=terms.priced_at,
            last_launch_at=terms.last_launches.get(pool),
        )

    def columns(self) -> Columns:
        """Return every offer in columns."""
        nodes, node, terms, rows = self._all, self._node, self._terms, len(self._node)
        accelerator, models = _numbered(nodes.accelerator.tolist())
        architecture, architectures = _numbered(nodes.architecture.tolist())
        laws = sorted({law for law in [*self._law, terms.store_jurisdiction] if law})
        law_of = np.array([_place(law, laws) for law in self._law] or [-1], dtype=np.int32)
        count = nodes.accelerator_count[node]
        hazards = [self._hazard(market) for market in _MARKETS]
        speeds = np.array([terms.speeds.get(model, 1.0) for model in models] or [1.0])
        markets = np.array([list(Market).index(market) for market in _MARKETS], dtype=np.int8)
        restart_us = terms.restart_overhead // timedelta(microseconds=1)
        return Columns(
            market=markets[self._market],
            accelerator=accelerator[node],
            preemptions_per_hour=np.array([np.nan if h is None else h for h in hazards])[
                self._market
            ],
            restart_us=np.full(rows, restart_us),
            speed=speeds[accelerator[node]],
            ends_us=np.full(rows, microseconds(None)),
            tariff=np.zeros(rows, dtype=np.int64),
            marginal=self._usd,
            effective=self._usd,
            cpus=np.nan_to_num(nodes.cpus[node]),
            memory_gib=np.nan_to_num(nodes.memory_gib[node]),
            accelerator_count=np.ceil(count),
            accelerator_memory_gib=np.zeros(rows),
            accelerator_fraction=np.where((count > 0) & (count < 1), count, 1.0),
            region=self._region_of[node],
            provider=self._provider[node].astype(np.int32),
            architecture=_unnamed(architecture, architectures)[node],
            jurisdiction=law_of[self._region_of[node]],
            store_jurisdiction=np.full(
                rows, _place(terms.store_jurisdiction, laws), dtype=np.int32
            ),
            room=np.full(rows, max(terms.slots, 0)),
            slots=np.full(rows, MANY),
            doubted=self._doubts > 0,
            priced_us=np.full(rows, microseconds(terms.priced_at)),
            launched_us=self._launches(),
            names={
                "accelerator": models,
                "region": self._regions,
                "provider": [one.nodes.provider for one in self._lists],
                "architecture": architectures,
                "jurisdiction": laws,
            },
        )

    def _launches(self) -> Ints:
        launched = np.full(len(self._node), NEVER_US)
        if self._terms.last_launches:
            for row in np.flatnonzero(self._doubts > 0).tolist():
                launched[row] = microseconds(self._terms.last_launches.get(self.pool(row)))
        return launched

    def _hazard(self, market: Market) -> float | None:
        return self._terms.spot_preemptions_per_hour if market is Market.SPOT else 0.0

    def _jurisdiction(self, region: str) -> str | None:
        laws = self._terms.jurisdictions.items()
        return next((law for pattern, law in laws if fnmatchcase(region, pattern)), None)


def _quotes(listed: PriceList) -> Quotes:
    accelerator, models = _numbered(listed.accelerator.tolist())
    return Quotes(
        sku=_numbered(listed.sku().tolist())[0].astype(np.int64),
        region=_numbered(listed.region.tolist())[0].astype(np.int64),
        accelerator=_unnamed(accelerator, models).astype(np.int64),
        accelerator_count=listed.accelerator_count,
        on_demand=listed.on_demand,
        spot=listed.spot,
    )


def _numbered(values: Sequence[str]) -> tuple[NDArray[np.int32], list[str]]:
    """Return each value's number, and the values by number."""
    known = {value: number for number, value in enumerate(dict.fromkeys(values))}
    numbers = np.fromiter(map(known.__getitem__, values), dtype=np.int32, count=len(values))
    return numbers, list(known)


def _unnamed(numbers: NDArray[np.int32], names: Sequence[str]) -> NDArray[np.int32]:
    """Return the numbers with -1 for the empty name."""
    empty = names.index("") if "" in names else -2
    return np.where(numbers == empty, -1, numbers).astype(np.int32)


def _place(name: str | None, names: Sequence[str]) -> int:
    return -1 if name is None else names.index(name)


def _fraction(count: float) -> float:
    return count if 0 < count < 1 else 1.0


def _known(number: float) -> float:
    return 0.0 if np.isnan(number) else float(number)


def _concatenated(lists: Sequence[PriceList]) -> PriceList:
    empty = parse_price_list(["InstanceType,AcceleratorName,AcceleratorCount,Price,Region"], "none")
    columns = {
        name: np.concatenate([getattr(one, name) for one in (empty, *lists)]) for name in COLUMNS
    }
    return PriceList(provider="all", **columns)
