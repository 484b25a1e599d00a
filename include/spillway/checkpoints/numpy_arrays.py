"""NumPy arrays, and those that become such, as arrays of a checkpoint and back; imported only where NumPy is in use.

Arrays of JAX are read one after the other, so that those of an accelerator are not all in memory; they come back as NumPy's.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from spillway.checkpoints.framing import Entry
from spillway.errors import CorruptCheckpointError, SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = MappingProxyType(
    {
        "BOOL": "bool", "U8": "uint8", "I8": "int8",
        "U16": "uint16", "I16": "int16", "F16": "float16",
        "U32": "uint32", "I32": "int32", "F32": "float32",
        "U64": "uint64", "I64": "int64", "F64": "float64", "C64": "complex64",
    }
)  # fmt: skip
_ML_DTYPES = MappingProxyType(
    {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
)
"""Types that the package ml_dtypes, which comes with JAX, adds to NumPy."""

_NAMES = MappingProxyType({dtype: name for name, dtype in (_DTYPES | _ML_DTYPES).items()})


def describe(array: NDArray[Any], place: str) -> Entry:
    """Return what the array is.

    Raises:
        SpecError: It cannot be saved; the message says so of `place`.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise SpecError(f"{place} cannot be saved: it is masked; save its `data` and its `mask`")
    if array.dtype.name not in _NAMES:
        raise SpecError(
            f"{place} cannot be saved: its elements are {array.dtype}, and not numbers of up to 64 bits"
        )
    return Entry(dtype=_NAMES[array.dtype.name], shape=array.shape)


def identity(array: Any) -> tuple[object, ...]:
    """Return what is equal for two arrays that are the same memory, seen in the same way."""
    if not isinstance(array, np.ndarray):
        return (id(array),)
    return array.ctypes.data, array.dtype.str, array.shape, array.strides


def dense_bytes(array: Any) -> NDArray[np.uint8] | None:
    """Return the memory of an array that only has to be copied; None where `copy_into` is to do it."""
    is_dense = isinstance(array, np.ndarray) and array.flags.c_contiguous and array.dtype.isnative
    return array.reshape(-1).view(np.uint8) if is_dense else None


def copy_into(array: NDArray[Any], target: memoryview) -> None:
    """Copy the array's numbers, dense and in order, into `target`."""
    np.frombuffer(target, dtype=array.dtype.name).reshape(array.shape)[...] = np.asarray(array)


def build(entry: Entry, data: memoryview) -> NDArray[Any]:
    """Return an array of its own.

    Raises:
        CorruptCheckpointError: NumPy has no such items.
        SpecError: It has with ml_dtypes, which is not installed here.
    """
    array = np.empty(entry.shape, dtype=_dtype(entry.dtype))
    if data:
        array.reshape(-1).view(np.uint8)[...] = np.frombuffer(data, dtype=np.uint8)
    return array


def _dtype(name: str) -> str:
    if name in _DTYPES:
        return _DTYPES[name]
    if name not in _ML_DTYPES:
        raise CorruptCheckpointError(f"NumPy has no items of type {name}")
    try:
        import ml_dtypes  # noqa: F401  # NumPy knows its names from then on
    except ImportError as error:
        raise SpecError(
            f"the checkpoint holds arrays of {_ML_DTYPES[name]}, which NumPy lacks: pip install ml_dtypes"
        ) from error
    return _ML_DTYPES[name]
