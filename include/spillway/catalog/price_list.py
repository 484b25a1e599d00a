"""Price lists of providers, as comma-separated text in SkyPilot's catalogue schema, read into columns.

One row is one machine in one place, with a price on demand and one on spot. Columns are found by their names in the first
line. A field too many is an unquoted comma in the last column, and does no harm. Google's accelerators have rows of their own,
which `google_nodes.py` puts together with the machines that hold them.

Source: SkyPilot's catalogue, github.com/skypilot-org/skypilot-catalog, schema v8.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Texts = NDArray[np.object_]
Floats = NDArray[np.float64]

_NEEDED: Final = ("InstanceType", "AcceleratorName", "AcceleratorCount", "Price", "Region")
# How the names of machines tell an Arm processor. Sources: cloud.google.com/compute/docs/instances/arm-on-compute;
# learn.microsoft.com/azure/virtual-machines/vm-naming-conventions, additive feature p.
_ARM_MACHINES: Final = {
    "gcp": re.compile(r"^(t2a|c4a|n4a|a4x)-"),
    "azure": re.compile(r"^Standard_[A-Z]+\d+(-\d+)?[a-z]*p[a-z]*_|^Standard_\w*GB200"),
}
_ARCHITECTURES: Final = {"x86_64": "amd64", "amd64": "amd64", "arm64": "arm64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """What one provider asks, a row a machine and place; every column has one entry a row.

    Attributes:
        instance: Name of the machine; empty for an accelerator that comes without one.
        zone: The place as finely as it is told; the region where it is not.
        architecture: In OCI's words; empty when it is not told.
        accelerator: Its model; empty for none.
        cpus, memory_gib: NaN where they are not told.
        on_demand, spot: US dollars an hour; NaN where there is none.
    """

    provider: str
    instance: Texts
    accelerator: Texts
    accelerator_count: Floats
    cpus: Floats
    memory_gib: Floats
    region: Texts
    zone: Texts
    architecture: Texts
    on_demand: Floats
    spot: Floats

    def __len__(self) -> int:
        return len(self.instance)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> PriceList:
        """Return the list of the chosen rows."""
        columns = {name: getattr(self, name)[rows] for name in COLUMNS}
        return PriceList(provider=self.provider, **columns)

    def sku(self) -> Texts:
        """Return what each row sells, wherever it is: the machine, or how many of which accelerator."""
        named = self.instance.copy()
        for row in np.flatnonzero(named == "").tolist():
            named[row] = f"{self.accelerator[row]} x{self.accelerator_count[row]:g}"
        return named


COLUMNS: Final = tuple(one.name for one in fields(PriceList) if one.name != "provider")


def read_price_list(path: Path, provider: str) -> PriceList:
    """Return the price list in the file at `path`.

    Raises:
        SpecError: It cannot be read, a column is missing, or a number is none; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as text:
            return parse_price_list(text, provider)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    except OSError as error:
        raise SpecError(f"cannot read price list {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path} is no comma-separated text in UTF-8: {error}") from error


def parse_price_list(lines: Iterable[str], provider: str) -> PriceList:
    """Return the price list that `lines` are, the names of the columns first.

    Raises:
        SpecError: A column is missing, a line is short, or a number is none.
    """
    reader = csv.reader(lines)
    header = next(reader, [])
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise SpecError(f"line 1 has no column {', '.join(missing)}; it begins a price list")
    rows = list(reader)
    if min(map(len, rows), default=len(header)) < len(header):
        short = next(n for n, row in enumerate(rows, 2) if len(row) < len(header))
        raise SpecError(f"line {short} has fewer fields than the first; the file is cut off")
    table = _Fields(header, rows)
    regions, zones = table.texts("Region"), table.texts("AvailabilityZone")
    return PriceList(
        provider=provider,
        instance=table.texts("InstanceType"),
        accelerator=table.texts("AcceleratorName"),
        accelerator_count=np.nan_to_num(table.numbers("AcceleratorCount")),
        cpus=table.numbers("vCPUs"),
        memory_gib=table.numbers("MemoryGiB"),
        region=regions,
        zone=np.where(zones != "", zones, regions),
        architecture=_architectures(table.texts("Arch"), table.texts("InstanceType"), provider),
        on_demand=table.numbers("Price"),
        spot=table.numbers("SpotPrice"),
    )


class _Fields:
    """The fields of a text, by column."""

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._place = {name: place for place, name in enumerate(header)}
        self._rows = rows

    def texts(self, name: str) -> Texts:
        return _texts(self._values(name))

    def numbers(self, name: str) -> Floats:
        values = self._values(name)
        try:
            known = {text: float(text or "nan") for text in dict.fromkeys(values)}
        except ValueError:
            line, text = next((n, t) for n, t in enumerate(values, 2) if not _is_number(t))
            raise SpecError(f"line {line}: {name} is {text!r}, which is not a number") from None
        return np.fromiter(map(known.__getitem__, values), dtype=np.float64, count=len(values))

    def _values(self, name: str) -> list[str]:
        place = self._place.get(name)
        if place is None:
            return [""] * len(self._rows)
        return list(map(itemgetter(place), self._rows))


def _architectures(told: Texts, instances: Texts, provider: str) -> Texts:
    """Return the architectures in OCI's words, by the machine's name where they are not told."""
    arm = _ARM_MACHINES.get(provider)
    known = {"": ""}
    for name in set(instances.tolist()):
        if name and arm is not None:
            known[name] = "arm64" if arm.match(name) else "amd64"
    return _texts(
        [
            _ARCHITECTURES.get(one, "") or known.get(name, "")
            for one, name in zip(told.tolist(), instances.tolist(), strict=True)
        ]
    )


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def _texts(values: Sequence[str]) -> Texts:
    """Return the texts as objects: most of them are few different ones, which are then kept once."""
    known = {value: value for value in dict.fromkeys(values)}
    return np.array(list(map(known.__getitem__, values)), dtype=object)
