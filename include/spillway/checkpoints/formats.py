"""A nested state as the parts of a checkpoint and back, without pickle: reading one runs no code that is in it.

The structure is JSON, in the part `state.json`; arrays are in one safetensors part for each framework, and long bytes in one
more. What JSON cannot tell apart is tagged: `{"$tuple": [...]}`, `{"$dict": [[key, value], ...]}` for keys that are not plain
text, `{"$bytes": base64}`, `{"$float": "nan"}`, `{"$int": "0x..."}` beyond 64 bits, and `{"$torch": name}`,
`{"$numpy": name}`, `{"$long": name}` for what is in the other parts. Frameworks are imported only when the state has something
of theirs.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from spillway.checkpoints.framing import Entry, Frame, lay_out, parse
from spillway.checkpoints.staging import aligned
from spillway.checkpoints.store import BytesLike
from spillway.errors import CorruptCheckpointError, SpecError

if TYPE_CHECKING:
    from concurrent.futures import Executor


STRUCTURE = "state.json"
TORCH = "torch.safetensors"
NUMPY = "numpy.safetensors"
LONG = "bytes.safetensors"

_FORMAT = "spillway-state/1"
_LONG_BYTES = 1024
"""Bytes objects longer than this are in a part of their own instead of the JSON."""


@dataclass(frozen=True, slots=True)
class Pickled:
    """A pickle, which is saved and restored unread: `Pickled.of(value)` puts it into a state, and `load()` runs it.

    For what has no other form. Whoever can write to the checkpoint store decides what `load` does.
    """

    data: bytes

    @classmethod
    def of(cls, value: object) -> Self:
        """Pickle `value` as it is now."""
        return cls(pickle.dumps(value))

    def load(self) -> Any:
        """Return the value, running whatever code the pickle names."""
        return pickle.loads(self.data)  # noqa: S301  # asked for by name, on a value that is no secret about it


def encode_state(state: object) -> dict[str, BytesLike]:
    """Return `state` as the parts of a checkpoint; `decode_state` returns an equal one, bit for bit.

    Dicts, lists, tuples, text, bytes, numbers, booleans, None, NumPy arrays and scalars, torch tensors, and `Pickled`, nested
    at will. Arrays that are the same memory are saved once, and are one array again. Tensors come back on the CPU and
    without gradients, arrays in the byte order of the machine, arrays of JAX and its like as NumPy's; subclasses of dict come
    back as dict.

    Raises:
        SpecError: Something in it cannot be saved; the message says where it is.
    """
    prepared = prepare(state)
    return prepared.write(memoryview(bytearray(prepared.size))).parts


def prepare(state: object) -> Prepared:
    """Look at all of `state` and copy none of its arrays, which are to stay as they are until `write` has returned.

    Raises:
        SpecError: Something in it cannot be saved; the message says where it is.
    """
    encoder = _Encoder()
    structure = encoder.encode(state, "state")
    document = json.dumps({"format": _FORMAT, "state": structure}).encode()
    return Prepared(structure=document, arrays=[one for one in encoder.kinds if one.values])


def decode_state(parts: Mapping[str, BytesLike]) -> Any:
    """Return the state that `parts`, made by `encode_state`, stand for.

    Raises:
        CorruptCheckpointError: They are not the parts of a state.
        SpecError: They hold arrays of a framework that is not installed here.
    """
    try:
        document = json.loads(bytes(parts[STRUCTURE]))
        if document["format"] != _FORMAT:
            raise CorruptCheckpointError(
                f"the checkpoint has format {document['format']!r} and this version reads {_FORMAT!r}"
            )
        return _Decoder(parts).decode(document["state"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"the checkpoint holds no state: {error!r}") from error


class _Arrays(Protocol):
    """What a framework's module does for the arrays of that framework."""

    def describe(self, value: Any, place: str, /) -> Entry: ...
    def identity(self, value: Any, /) -> tuple[object, ...]: ...
    def dense_bytes(self, value: Any, /) -> Any: ...
    def copy_into(self, value: Any, target: memoryview, /) -> None: ...
    def build(self, entry: Entry, data: memoryview, /) -> Any: ...


class _LongBytes:
    """Bytes, as if they were the arrays of one more framework."""

    def describe(self, value: bytes, _place: str) -> Entry:
        return Entry(dtype="U8", shape=(len(value),))

    def identity(self, value: bytes) -> tuple[object, ...]:
        return (id(value),)

    def dense_bytes(self, _value: bytes) -> None:
        return None

    def copy_into(self, value: bytes, target: memoryview) -> None:
        target[:] = value

    def build(self, _entry: Entry, data: memoryview) -> bytes:
        return bytes(data)


@dataclass(slots=True)
class _Kind:
    """The arrays of one framework in one state.

    Attributes:
        tag: What stands for one of them in the structure.
        part: The part they are in.
        module: Where its functions are.
        framework: What has to be installed.
    """

    tag: str
    part: str
    module: str
    framework: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    names: dict[tuple[object, ...], str] = field(default_factory=dict[tuple[object, ...], str])

    @property
    def arrays(self) -> _Arrays:
        if not self.module:
            return _LongBytes()
        try:
            return cast("_Arrays", importlib.import_module(self.module))
        except ImportError as error:
            raise SpecError(
                f"the checkpoint holds arrays of {self.framework}, which cannot be imported here ({error}): install it"
            ) from error

    def add(self, value: Any, place: str) -> dict[str, Any]:
        """Take `value` in, unless it is in already, and return what stands for it."""
        arrays = self.arrays
        entry = arrays.describe(value, place)
        name = str(len(self.values))
        if entry.size:
            name = self.names.setdefault(arrays.identity(value), name)
        if name not in self.values:
            self.values[name], self.entries[name] = value, entry
        return {self.tag: name}


def _kinds() -> tuple[_Kind, _Kind, _Kind]:
    return (
        _Kind("$torch", TORCH, "spillway.checkpoints.torch_tensors", "torch"),
        _Kind("$numpy", NUMPY, "spillway.checkpoints.numpy_arrays", "numpy"),
        _Kind("$long", LONG, "", ""),
    )


@dataclass(frozen=True, slots=True)
class Written:
    """A state that has been copied.

    Attributes:
        parts: What it is made of.
        digests: Of the blocks of parts, where they were found on the way.
    """

    parts: dict[str, BytesLike]
    digests: Mapping[str, Sequence[bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A state that can be saved, of which nothing has been copied yet.

    Attributes:
        structure: The part `state.json`.
        arrays: What the other parts are made of.
    """

    structure: bytes
    arrays: list[_Kind]

    @property
    def size(self) -> int:
        """Bytes that `write` needs."""
        return sum(aligned(self._frame(kind).size) for kind in self.arrays)

    def write(self, room: memoryview, helper: Executor | None = None) -> Written:
        """Copy every array into `room`, and return the parts, which are views of it that begin at multiples of `ALIGNMENT`.

        With a `helper`, half of a large state is copied by it: the work waits for the copy, so a second core is idle.
        """
        if not self.arrays:
            return Written({STRUCTURE: self.structure}, {})
        from spillway.checkpoints.copying import (
            Source,
            copy_all,
        )  # needs NumPy, which takes long to import

        parts: dict[str, memoryview] = {}
        to_copy: list[list[Source]] = []
        begin = 0
        for kind in self.arrays:
            frame = self._frame(kind)
            part = parts[kind.part] = room[begin : begin + frame.size]
            part[: len(frame.header)] = frame.header
            arrays, sources = kind.arrays, list[Source]()
            for name, (first, last) in frame.places.items():
                dense = arrays.dense_bytes(kind.values[name]) if last > first else None
                if dense is not None:
                    sources.append(Source(first, dense))
                elif last > first:
                    arrays.copy_into(kind.values[name], part[first:last])
            to_copy.append(sources)
            begin += aligned(frame.size)
        digests = copy_all(list(zip(parts.values(), to_copy, strict=True)), helper)
        return Written({STRUCTURE: self.structure, **parts}, dict(zip(parts, digests, strict=True)))

    def _frame(self, kind: _Kind) -> Frame:
        return lay_out(kind.entries)


class _Encoder:
    def __init__(self) -> None:
        self.kinds = _kinds()
        self._torch, self._numpy, self._long = self.kinds

    def encode(self, value: object, place: str) -> Any:  # noqa: PLR0911  # one line for each kind reads best
        if value is None or type(value) in (bool, str):
            return value
        if type(value) is int:
            return value if -(1 << 63) <= value < 1 << 63 else {"$int": hex(value)}
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, dict):
            return self._encode_dict(value, place)
        if type(value) is list:
            return [self.encode(item, f"{place}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return {"$tuple": [self.encode(x, f"{place}[{i}]") for i, x in enumerate(value)]}
        if isinstance(value, bytes | bytearray):
            return self._encode_bytes(bytes(value), place)
        if isinstance(value, Pickled):
            return {"$pickle": self._encode_bytes(value.data, place)}
        return self._encode_array(value, place)

    def _encode_dict(self, value: dict[Any, Any], place: str) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.encode(item, f"{place}.{key}") for key, item in value.items()}
        return {
            "$dict": [
                [self.encode(key, f"{place}, key {key!r}"), self.encode(item, f"{place}[{key!r}]")]
                for key, item in value.items()
            ]
        }

    def _encode_bytes(self, value: bytes, place: str) -> Any:
        if len(value) > _LONG_BYTES:
            return self._long.add(value, place)
        return {"$bytes": base64.b64encode(value).decode()}

    def _encode_array(self, value: object, place: str) -> Any:
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if torch is not None and isinstance(value, torch.Tensor):
            return self._torch.add(value, place)
        if numpy is not None and isinstance(value, numpy.ndarray):
            return self._numpy.add(value, place)
        if numpy is not None and isinstance(value, numpy.generic):
            return {**self._numpy.add(numpy.asarray(value), place), "scalar": True}
        if numpy is not None and hasattr(type(value), "__array_namespace__"):
            return self._numpy.add(value, place)
        raise SpecError(
            f"{place} cannot be saved: it is a {type(value).__qualname__}; use dicts, lists, numbers, text, bytes,"
            " arrays and tensors, such as state_dict() returns, or Pickled.of() it"
        )


class _Decoder:
    def __init__(self, parts: Mapping[str, BytesLike]) -> None:
        self._parts = parts
        self._kinds = {kind.tag: kind for kind in _kinds()}
        self._found: dict[str, dict[str, tuple[Entry, memoryview]]] = {}

    def decode(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        tag = next(iter(node), "")
        if not tag.startswith("$"):
            return {key: self.decode(item) for key, item in node.items()}
        return self._decode_tagged(tag, node)

    def _decode_tagged(self, tag: str, node: dict[str, Any]) -> Any:  # noqa: PLR0911  # one line for each tag
        content = node[tag]
        match tag:
            case "$tuple":
                return tuple(self.decode(item) for item in content)
            case "$dict":
                return {self.decode(key): self.decode(item) for key, item in content}
            case "$bytes":
                return base64.b64decode(content)
            case "$int":
                return int(content, 16)
            case "$float":
                return float(content)
            case "$pickle":
                return Pickled(self.decode(content))
            case "$torch" | "$numpy" | "$long":
                array = self._array(self._kinds[tag], content)
                return array[()] if node.get("scalar") else array
            case _:
                raise CorruptCheckpointError(f"the checkpoint has the unknown tag {tag!r}")

    def _array(self, kind: _Kind, name: str) -> Any:
        """Return the array; one that was saved once is one array, however many places it is in."""
        if name not in kind.values:
            if kind.tag not in self._found:
                self._found[kind.tag] = parse(self._parts[kind.part])
            kind.values[name] = kind.arrays.build(*self._found[kind.tag][name])
        return kind.values[name]
