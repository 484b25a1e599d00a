"""A nested state as bytes and back, without pickle: reading one runs no code that is in it.

The structure is JSON, in the part `state.json`; arrays are in one safetensors part for each framework. What JSON cannot tell
apart is tagged: `{"$tuple": [...]}`, `{"$dict": [[key, value], ...]}` for keys that are not plain text, `{"$bytes": base64}`,
`{"$float": "nan"}`, and `{"$torch": name}`, `{"$numpy": name}` for arrays. Frameworks are imported only when the state has
something of theirs.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from spillway.errors import CorruptCheckpointError, SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch

STRUCTURE = "state.json"
TORCH = "torch.safetensors"
NUMPY = "numpy.safetensors"

_FORMAT = "spillway-state/1"


def encode_state(state: object) -> dict[str, bytes]:
    """Return `state` as the parts of a checkpoint; `decode_state` returns an equal one, bit for bit.

    Dicts, lists, tuples, text, bytes, numbers, booleans, None, NumPy arrays and scalars, and torch tensors, nested at will.
    Tensors come back on the CPU and without gradients; subclasses of dict come back as dict.

    Raises:
        SpecError: Something in it cannot be saved; the message says where it is.
    """
    encoder = _Encoder()
    structure = encoder.encode(state, "state")
    parts = {STRUCTURE: json.dumps({"format": _FORMAT, "state": structure}).encode()}
    if encoder.tensors:
        from safetensors.torch import save

        parts[TORCH] = save(encoder.tensors)
    if encoder.arrays:
        from safetensors.numpy import save as save_arrays

        parts[NUMPY] = save_arrays(encoder.arrays)
    return parts


def decode_state(parts: Mapping[str, bytes]) -> Any:
    """Return the state that `parts`, made by `encode_state`, stand for.

    Raises:
        CorruptCheckpointError: They are not the parts of a state.
    """
    try:
        document = json.loads(parts[STRUCTURE])
        if document["format"] != _FORMAT:
            raise CorruptCheckpointError(
                f"the checkpoint has format {document['format']!r} and this version reads {_FORMAT!r}"
            )
        return _Decoder(parts).decode(document["state"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptCheckpointError(f"the checkpoint holds no state: {error!r}") from error


class _Encoder:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._storages: set[int] = set()

    def encode(self, value: object, place: str) -> Any:  # noqa: PLR0911  # one line for each kind reads best
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, dict):
            return self._encode_dict(value, place)
        if type(value) is list:
            return [self.encode(item, f"{place}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return {"$tuple": [self.encode(x, f"{place}[{i}]") for i, x in enumerate(value)]}
        if isinstance(value, bytes | bytearray):
            return {"$bytes": base64.b64encode(value).decode()}
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

    def _encode_array(self, value: object, place: str) -> Any:
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        if torch is not None and isinstance(value, torch.Tensor):
            name = str(len(self.tensors))
            self.tensors[name] = self._own(value, place)
            return {"$torch": name}
        if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
            array = numpy.asarray(value)
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                raise SpecError(
                    f"{place} cannot be saved: its elements are {array.dtype}, not numbers"
                )
            name = str(len(self.arrays))
            self.arrays[name] = numpy.ascontiguousarray(array).reshape(array.shape)
            return {"$numpy": name, "scalar": True} if value is not array else {"$numpy": name}
        raise SpecError(
            f"{place} cannot be saved: it is a {type(value).__qualname__}; use dicts, lists, numbers, text, bytes,"
            " arrays and tensors, such as state_dict() returns"
        )

    def _own(self, tensor: torch.Tensor, place: str) -> torch.Tensor:
        """Return the tensor as safetensors takes it: on the CPU, dense, and sharing no memory with another."""
        if tensor.layout is not sys.modules["torch"].strided or tensor.is_quantized:
            raise SpecError(
                f"{place} cannot be saved: it is sparse or quantised; save it as dense tensors"
            )
        dense = tensor.detach().cpu().contiguous()
        storage = dense.untyped_storage().data_ptr()
        if storage in self._storages:
            return dense.clone()
        self._storages.add(storage)
        return dense


def _load(framework: str, data: bytes | None) -> Mapping[str, Any]:
    if data is None:
        return {}
    from safetensors import SafetensorError

    try:
        loaded: Mapping[str, Any] = importlib.import_module(framework).load(data)
    except SafetensorError as error:
        raise CorruptCheckpointError(f"the checkpoint's arrays cannot be read: {error}") from error
    return loaded


class _Decoder:
    def __init__(self, parts: Mapping[str, bytes]) -> None:
        self._tensors = _load("safetensors.torch", parts.get(TORCH))
        self._arrays = _load("safetensors.numpy", parts.get(NUMPY))

    def decode(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        tag = next(iter(node), "")
        if not tag.startswith("$"):
            return {key: self.decode(item) for key, item in node.items()}
        return self._decode_tagged(tag, node)

    def _decode_tagged(self, tag: str, node: dict[str, Any]) -> Any:
        content = node[tag]
        match tag:
            case "$tuple":
                return tuple(self.decode(item) for item in content)
            case "$dict":
                return {self.decode(key): self.decode(item) for key, item in content}
            case "$bytes":
                return base64.b64decode(content)
            case "$float":
                return float(content)
            case "$torch":
                return self._tensors[content]
            case "$numpy":
                array = self._arrays[content]
                return array[()] if node.get("scalar") else array
            case _:
                raise CorruptCheckpointError(f"the checkpoint has the unknown tag {tag!r}")
