"""Torch tensors as arrays of a checkpoint, and back; imported only where torch is in use."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from spillway.checkpoints.framing import Entry
from spillway.errors import SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = MappingProxyType(
    {
        "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8,
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
        "U16": torch.uint16, "I16": torch.int16, "F16": torch.float16, "BF16": torch.bfloat16,
        "U32": torch.uint32, "I32": torch.int32, "F32": torch.float32,
        "U64": torch.uint64, "I64": torch.int64, "F64": torch.float64, "C64": torch.complex64,
    }
)  # fmt: skip
_NAMES = MappingProxyType({dtype: name for name, dtype in _DTYPES.items()})


def describe(tensor: torch.Tensor, place: str) -> Entry:
    """Return what the tensor is.

    Raises:
        SpecError: It cannot be saved; the message says so of `place`.
    """
    if tensor.is_nested or _has_its_own_ways(tensor):
        raise SpecError(
            f"{place} cannot be saved: it is a {type(tensor).__name__} of other tensors; gather it, or save those"
        )
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise SpecError(
            f"{place} cannot be saved: it is sparse or quantised; save it as dense tensors"
        )
    if tensor.is_meta:
        raise SpecError(f"{place} cannot be saved: it is on the meta device and has no numbers")
    if tensor.dtype not in _NAMES:
        raise SpecError(f"{place} cannot be saved: its elements are {tensor.dtype}")
    return Entry(dtype=_NAMES[tensor.dtype], shape=tuple(tensor.shape))


def identity(tensor: torch.Tensor) -> tuple[object, ...]:
    """Return what is equal for two tensors that are the same memory, seen in the same way."""
    return (
        tensor.device,
        tensor.data_ptr(),
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        tensor.is_conj(),  # views that differ from their memory by a bit on the tensor alone
        tensor.is_neg(),
    )


def dense_bytes(tensor: torch.Tensor) -> NDArray[np.uint8] | None:
    """Return the memory of a tensor that only has to be copied; None where `copy_into` is to do it."""
    tensor = tensor.detach()
    if not tensor.is_cpu or not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        return None
    return _bytes_of(tensor)


def copy_into(tensor: torch.Tensor, target: memoryview) -> None:
    """Copy the tensor's numbers, dense and in order, into `target`; they are there when this returns."""
    torch.frombuffer(target, dtype=tensor.dtype).view(tensor.shape).copy_(tensor.detach())


def build(entry: Entry, data: memoryview) -> torch.Tensor:
    """Return a tensor of its own, on the CPU."""
    tensor = torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
    if data:
        np.copyto(_bytes_of(tensor), np.frombuffer(data, dtype=np.uint8))
    return tensor


def _has_its_own_ways(tensor: torch.Tensor) -> bool:
    """Return whether its numbers are not at its own address, as those of a `DTensor` that is spread over machines."""
    return type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__


def _bytes_of(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """Return the memory of a dense tensor."""
    return tensor.view(-1).view(torch.uint8).numpy()
