"""The pools file as pydantic models: what may be written, in which unit, and what it becomes."""

from __future__ import annotations

import ast
import inspect
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from spillway.model import (
    CapacityBlock,
    Commitment,
    HourlyCommitment,
    Market,
    MonthlyMinimum,
    Pool,
    PrepaidHours,
    Quota,
    Resources,
)
from spillway.placement.fractions import in_slices

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

    from spillway.catalog.listed_prices import ListedPrice

NAME_PATTERN = r"^[a-z][a-z0-9_-]{0,39}$"
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)([smhd])$")
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def _to_duration(value: object) -> timedelta:
    found = _DURATION.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("is not a duration; write a number and a unit: 30s, 15m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2]]


def to_instant(value: object) -> datetime:
    """Return the instant as UTC; a date alone is its first instant.

    Raises:
        ValueError: It is not a date or a time; what is wrong and the remedy, after a semicolon.
    """
    wrong = "is not a time in UTC; write it like 2026-03-01 or 2026-03-01T12:00Z"
    try:
        # YAML itself reads what is not quoted as a date or a datetime; their text says the same.
        instant = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ValueError(wrong) from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def to_decimal(value: object) -> Decimal:
    """Return the number exactly as it is written: 0.1 is a tenth, which no float is.

    Raises:
        ValueError: It is not a finite number; what is wrong and the remedy, after a semicolon.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("is not a number; write it like 0.12")  # noqa: TRY004 - pydantic reports a ValueError
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError("is not a number; write it like 0.12")
    return number


Duration = Annotated[
    timedelta,
    BeforeValidator(_to_duration),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["30s", "15m"]}),
]
Amount = Annotated[
    Decimal,
    BeforeValidator(to_decimal),
    Field(ge=0),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)?$"},
            ]
        }
    ),
]
Instant = Annotated[
    datetime,
    BeforeValidator(to_instant),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?(Z|[+-]\d{2}:\d{2})?)?$",
            "examples": ["2026-03-01", "2026-03-01T12:00Z"],
        }
    ),
]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _Section(BaseModel):
    # Not pydantic's `use_attribute_docstrings`: that reads the source at every import, and every task imports this.
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema with what stands below each field as its description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in _texts_below(cls).items():
            properties[name]["description"] = text
        return schema


def _texts_below(section: type[_Section]) -> dict[str, str]:
    """Return the string that stands below each field, by the field's name."""
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for above, below in pairwise(definition.body):
        match above, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(value=str(text))):
                texts[name] = inspect.cleandoc(text)
            case _:
                pass
    return texts


class ShapeSection(_Section):
    """What one slot has."""

    cpus: Annotated[Finite, Field(gt=0)]
    """CPUs of one slot."""
    memory_gib: Annotated[Finite, Field(gt=0)]
    """Host memory of one slot, in GiB."""
    accelerator: Annotated[str, Field(min_length=1)] | None = None
    """Model of the accelerator, such as H100; left out for none."""
    accelerator_count: Annotated[int, Field(strict=True, ge=0)] = 0
    """How many accelerators one slot has."""
    accelerator_memory_gib: Annotated[Finite, Field(ge=0)] = 0.0
    """Memory of each accelerator, in GiB."""
    accelerator_fraction: Annotated[Finite, Field(gt=0, le=1)] = 1.0
    """Which part of an accelerator one slot has, where it is divided: the share of its MIG profile."""
    mig_profile: Annotated[str, Field(min_length=1)] | None = None
    """MIG profile that each slot's one accelerator is divided by, such as 3g.40gb; all else is said of the whole slot."""

    def to_resources(self) -> Resources:
        """Return the value the section stands for."""
        return Resources(
            cpus=self.cpus,
            memory_gib=self.memory_gib,
            accelerator=self.accelerator,
            accelerator_count=self.accelerator_count,
            accelerator_memory_gib=self.accelerator_memory_gib,
            accelerator_fraction=self.accelerator_fraction,
        )


class HourlySection(_Section):
    """Every slot is owed every hour, used or not: a reserved instance, a committed-use discount."""

    kind: Literal["hourly"]
    """Owed by the hour."""
    usd_per_slot_hour: Amount
    """US dollars owed for each slot and hour."""

    def to_commitment(self) -> Commitment:
        """Return the value the section stands for."""
        return HourlyCommitment(usd_per_slot_hour=self.usd_per_slot_hour)


class MonthlySection(_Section):
    """Take-or-pay: slot hours owed every calendar month (UTC), and a price for each hour past them."""

    kind: Literal["monthly_minimum"]
    """Owed by the month."""
    slot_hours: Amount
    """Slot hours owed every calendar month."""
    usd_per_slot_hour: Amount
    """US dollars owed for each of these hours."""
    overage_usd_per_slot_hour: Amount
    """US dollars for each hour past them."""
    variable_usd_per_slot_hour: Amount = Decimal(0)
    """Fees in US dollars that every used hour adds, inside the minimum and past it."""
    ends_at: Instant | None = None
    """When the contract's term is over, in UTC: no month is owed that begins later, and each hour costs the overage."""

    def to_commitment(self) -> Commitment:
        """Return the value the section stands for."""
        return MonthlyMinimum(
            slot_hours=self.slot_hours,
            usd_per_slot_hour=self.usd_per_slot_hour,
            overage_usd_per_slot_hour=self.overage_usd_per_slot_hour,
            variable_usd_per_slot_hour=self.variable_usd_per_slot_hour,
            ends_at=self.ends_at,
        )


class PrepaidSection(_Section):
    """Slot hours paid for in advance; what is left of them at the period's end lapses."""

    kind: Literal["prepaid"]
    """Owed, and paid, before it is used."""
    slot_hours: Amount
    """Slot hours bought for the period."""
    usd_per_slot_hour: Amount
    """US dollars paid for each of these hours."""
    overage_usd_per_slot_hour: Amount
    """US dollars for each hour that they do not cover."""
    starts_at: Instant
    """When the period begins, in UTC."""
    ends_at: Instant
    """When what is left lapses, in UTC."""

    def to_commitment(self) -> Commitment:
        """Return the value the section stands for."""
        return PrepaidHours(
            slot_hours=self.slot_hours,
            usd_per_slot_hour=self.usd_per_slot_hour,
            overage_usd_per_slot_hour=self.overage_usd_per_slot_hour,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
        )


class BlockSection(_Section):
    """Slots reserved and paid for over one stretch of time, such as an EC2 Capacity Block."""

    kind: Literal["capacity_block"]
    """Owed for a stretch of time."""
    usd_per_slot_hour: Amount
    """US dollars owed for each slot and hour of the block."""
    starts_at: Instant
    """When the block begins, in UTC; before it the pool has no slots."""
    ends_at: Instant
    """When the block ends, in UTC; after it the pool has no slots."""

    def to_commitment(self) -> Commitment:
        """Return the value the section stands for."""
        return CapacityBlock(
            usd_per_slot_hour=self.usd_per_slot_hour,
            starts_at=self.starts_at,
            ends_at=self.ends_at,
        )


class PriceListSection(_Section):
    """Where the price of one slot is read: a row of a provider's price list."""

    file: Annotated[str, Field(min_length=1)]
    """The list, as comma-separated text in SkyPilot's catalogue schema; a relative path begins at the pools file."""
    instance: Annotated[str, Field(min_length=1)]
    """Name of the machine in the list, such as p5.48xlarge."""
    zone: Annotated[str, Field(min_length=1)] | None = None
    """Zone of the row; left out for the cheapest of the region."""


COMMITMENT_SECTIONS = (HourlySection, MonthlySection, PrepaidSection, BlockSection)
COMMITMENT_KINDS = ("hourly", "monthly_minimum", "prepaid", "capacity_block")


class PoolSection(_Section):
    """Capacity with one provider, market and shape."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the pool: lower case letters, digits, dash and underscore."""
    backend: str
    """Name of the backend that talks to its provider."""
    market: Market
    """How it is bought."""
    slots: Annotated[int, Field(strict=True, ge=0)]
    """How many leases fit at once; each takes one shape. 0 closes the pool."""
    shape: ShapeSection
    list_usd_per_hour: Amount | None = None
    """Public price of one slot, in US dollars an hour; or else price_list says where it is read."""
    price_list: PriceListSection | None = None
    """Where the public price of one slot is read; a price that looks wrong there cannot win a placement."""
    quota: Annotated[str, Field(min_length=1)] | None = None
    """Name of the provider's quota, under quotas, that its slots count against."""
    commitment: (
        Annotated[
            HourlySection | MonthlySection | PrepaidSection | BlockSection,
            Field(discriminator="kind"),
        ]
        | None
    ) = None
    """What is owed whether used or not; reserved and partner pools have one, the others none."""
    preemptions_per_hour: Annotated[Finite, Field(ge=0)] | None = None
    """How often the provider takes one slot back; left out for not known on spot, and never elsewhere."""
    interruption_band: Literal["<5%", "5-10%", "10-15%", "15-20%", ">20%"] | None = None
    """Frequency of interruption by AWS's Spot Instance Advisor, to begin with where preemptions_per_hour is not known."""
    grace_period: Duration = timedelta(seconds=30)
    """Warning time between notice and preemption."""
    restart_overhead: Duration = timedelta(0)
    """Time from lease to first instruction: boot, pull."""
    speed: Annotated[Finite, Field(gt=0)] = 1.0
    """Work done in an hour, relative to speed 1."""
    region: Annotated[str, Field(min_length=1)] = "local"
    """Where it is, in the provider's words."""
    zone: Annotated[str, Field(min_length=1)] | None = None
    """Where in the region, in the provider's words; left out where it may be any, or where price_list says it."""
    architecture: Annotated[str, Field(min_length=1)] | None = None
    """Of its processors, in OCI's words, such as amd64 or arm64; left out when it is not known."""
    jurisdiction: Annotated[str, Field(min_length=1)] | None = None
    """Whose law its machines are under, such as EU; left out when it is not known."""
    provider: Annotated[str, Field(min_length=1)] | None = None
    """Who owns the machines, such as aws, gcp or azure; left out where the backend says it."""
    connection: Annotated[str, Field(min_length=1)] | None = None
    """Airflow connection with its credentials; left out when it needs none."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """What only its backend understands."""

    def to_pool(self, price: ListedPrice | None = None, quota: Quota | None = None) -> Pool:
        """Return the value the section stands for, with what was looked up for it."""
        pool = Pool(
            name=self.name,
            backend=self.backend,
            market=self.market,
            slots=self.slots,
            shape=self.shape.to_resources(),
            list_usd_per_hour=price.usd_per_hour if price else self.list_usd_per_hour or Decimal(0),
            price_doubts=price.doubts if price else (),
            priced_at=price.priced_at if price else None,
            quota=quota,
            commitment=None if self.commitment is None else self.commitment.to_commitment(),
            preemptions_per_hour=self._hazard(),
            grace_period=self.grace_period,
            restart_overhead=self.restart_overhead,
            speed=self.speed,
            region=self.region,
            architecture=self.architecture,
            jurisdiction=self.jurisdiction,
            provider=self.provider,
            zone=self.zone or (self.price_list.zone if self.price_list else None),
            interruption_band=self.interruption_band,
            connection=self.connection,
            options=self.options,
        )
        profile = self.shape.mig_profile
        return pool if profile is None else in_slices(pool, profile)

    def _hazard(self) -> float | None:
        if self.preemptions_per_hour is None and self.market is not Market.SPOT:
            return 0.0
        return self.preemptions_per_hour


class PoolsFile(_Section):
    """The pools of one deployment."""

    pools: Annotated[list[PoolSection], Field(min_length=1)]
    """One entry a pool; names are unique."""
    quotas: dict[str, Annotated[int, Field(strict=True, ge=0)]] = Field(default_factory=dict)
    """Slots that a provider's quota allows over all pools that name it."""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema that editors check a pools file against."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **PoolsFile.model_json_schema(),
    }
