"""The safetensors format, to write arrays into memory that is there already, and to find them in bytes nobody vouches for.

Eight bytes with the length of the header, the header as JSON, then the arrays without gaps. The library of that name reads
what is written here; it is not used because it makes a copy of everything it writes.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from spillway.errors import CorruptCheckpointError

if TYPE_CHECKING:
    from spillway.checkpoints.store import BytesLike

ITEM_SIZES: Final = MappingProxyType(
    {
        "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
        "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
        "U32": 4, "I32": 4, "F32": 4,
        "U64": 8, "I64": 8, "F64": 8, "C64": 8,
    }
)  # fmt: skip
"""Bytes of one item, by the format's name of its type."""

_LENGTH_BYTES = 8
_DATA_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One array.

    Attributes:
        dtype: Type of its items, by the format's name.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of all items."""
        return ITEM_SIZES[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where everything goes in one file.

    Attributes:
        header: What the file begins with.
        places: First byte and the byte after the last of each array, by its name.
        size: Bytes of the file.
    """

    header: bytes
    places: Mapping[str, tuple[int, int]]
    size: int


def lay_out(entries: Mapping[str, Entry]) -> Frame:
    """Return the file that holds `entries`: large items first, which leaves every array aligned to its items."""
    offsets, end = {}, 0
    for name in sorted(entries, key=lambda name: -ITEM_SIZES[entries[name].dtype]):
        begin, end = end, end + entries[name].size
        offsets[name] = begin, end
    header = {
        name: {
            "dtype": entries[name].dtype,
            "shape": entries[name].shape,
            "data_offsets": offsets[name],
        }
        for name in offsets
    }
    text = json.dumps(header).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _DATA_ALIGNMENT)
    start = _LENGTH_BYTES + len(text)
    return Frame(
        header=len(text).to_bytes(_LENGTH_BYTES, "little") + text,
        places={name: (start + begin, start + end) for name, (begin, end) in offsets.items()},
        size=start + end,
    )


def parse(data: BytesLike) -> dict[str, tuple[Entry, memoryview]]:
    """Return the arrays of a file by their names, as views of `data`.

    Raises:
        CorruptCheckpointError: It is no such file, or its header does not fit its data.
    """
    view = memoryview(data).cast("B")
    end = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "little")
    if not _LENGTH_BYTES < end <= len(view):
        raise CorruptCheckpointError("the checkpoint's arrays have no header")
    try:
        header = json.loads(bytes(view[_LENGTH_BYTES:end]))
        return {
            name: _find(one, view[end:]) for name, one in header.items() if name != "__metadata__"
        }
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptCheckpointError(
            f"the header of the checkpoint's arrays cannot be read: {error!r}"
        ) from error


def _find(one: Any, data: memoryview) -> tuple[Entry, memoryview]:
    begin, end = one["data_offsets"]
    entry = Entry(dtype=one["dtype"], shape=tuple(one["shape"]))
    whole = all(type(number) is int and number >= 0 for number in (begin, end, *entry.shape))
    if not whole or not begin <= end <= len(data) or end - begin != entry.size:
        raise ValueError(f"{one} does not fit {len(data)} bytes")
    return entry, data[begin:end]
