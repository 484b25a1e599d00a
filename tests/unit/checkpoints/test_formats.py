from __future__ import annotations

import json
import math
import pickle
import random
import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows its types from then on
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from spillway.checkpoints.formats import (
    LONG,
    NUMPY,
    STRUCTURE,
    TORCH,
    Pickled,
    decode_state,
    encode_state,
)
from spillway.checkpoints.framing import Entry, lay_out, parse
from spillway.errors import CorruptCheckpointError, SpecError

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20)
)
keys = st.text(max_size=5) | st.integers() | st.sampled_from(["$tuple", "$", "$dict"])
arrays = st.builds(
    lambda numbers, dtype: np.array(numbers, dtype=dtype),
    st.lists(st.integers(min_value=0, max_value=100), max_size=4),
    st.sampled_from(["float16", "float32", "float64", "int8", "uint64", "bool", "int32"]),
)
states = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
    ),
    max_leaves=20,
)


def equal(one: Any, other: Any) -> bool:  # noqa: PLR0911  # one line for each kind
    """Equality that looks at types and bits; -0.0 differs from 0.0, and one NaN is as good as another."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, np.ndarray | np.generic):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, torch.Tensor):
        return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(
            one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
        )
    return bool(one == other)


TRAP = Path("/nowhere")


def touch_the_trap() -> None:
    TRAP.touch()


class Malicious:
    """Whoever unpickles one calls `touch_the_trap`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return touch_the_trap, ()


def again(state: object) -> Any:
    return decode_state(encode_state(state))


@given(states)
def test_every_state_comes_back_as_it_was(state: Any) -> None:
    assert equal(again(state), state)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float16,
        torch.float32,
        torch.float64,
        torch.int64,
        torch.uint8,
        torch.bool,
    ],
)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3)])
def test_tensors_come_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert equal(again(tensor), tensor)


def test_nan_bits_and_odd_layouts_come_back_bit_for_bit() -> None:
    bits = torch.tensor([0x7FC01234, 0x7F800001, -1, 1], dtype=torch.int32)
    state = {
        "nan": bits.view(torch.float32),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "slice": torch.arange(10.0)[::3],
        "array": np.arange(6).reshape(2, 3).T,
        "big endian": np.arange(3, dtype=">i4").astype("<i4"),
    }
    assert equal(again(state), {name: _dense(value) for name, value in state.items()})


def _dense(value: Any) -> Any:
    return value.contiguous() if isinstance(value, torch.Tensor) else np.ascontiguousarray(value)


def test_training_goes_on_bit_for_bit() -> None:
    """Model, AdamW with its integer keys, scheduler, and the generators of three libraries."""

    def build() -> tuple[Any, Any, Any]:
        model = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(model.parameters())
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)

    def train(parts: tuple[Any, Any, Any], steps: int) -> list[float]:
        model, optimizer, scheduler = parts
        losses = []
        for _ in range(steps):
            inputs = torch.randn(3, 4) * random.random() + float(np.random.rand())  # noqa: NPY002  # the state that most code has
            optimizer.zero_grad()
            loss = model(inputs).square().sum()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        return losses

    torch.manual_seed(0)
    parts = build()
    train(parts, 3)
    saved = encode_state(
        {
            "parts": [part.state_dict() for part in parts],
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002
        }
    )
    expected = train(parts, 5)

    other = build()
    state = decode_state(saved)
    for part, part_state in zip(other, state["parts"], strict=True):
        part.load_state_dict(part_state)
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    assert train(other, 5) == expected


def test_tied_weights_are_saved_once_and_tied_again() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    parts = encode_state({"embedding": weight, "head": weight, "row": weight[0]})
    assert len(parse(parts[TORCH])) == 2
    state = decode_state(parts)
    assert state["head"] is state["embedding"]
    assert torch.equal(state["head"], torch.ones(2, 2))
    assert torch.equal(state["row"], torch.ones(2))


def test_tensors_of_one_memory_that_are_read_differently_come_back_as_they_looked() -> None:
    base = torch.tensor([1 + 2j, 3 - 4j])
    state = {"base": base, "turned": base.conj(), "same": base.conj()}
    state |= {"imaginary": base.imag, "negated": base.conj().imag}
    found = again(state)
    dense = {name: value.resolve_conj().resolve_neg().contiguous() for name, value in state.items()}
    assert equal(found, dense)
    assert found["same"] is found["turned"]


def test_arrays_that_are_views_of_one_memory_come_back_as_they_looked() -> None:
    base = np.arange(6.0)
    state = again({"base": base, "same": base, "every other": base[::2], "turned": base[::-1]})
    assert state["same"] is state["base"]
    assert equal(state["every other"], np.array([0.0, 2.0, 4.0]))
    assert equal(state["turned"], np.arange(5.0, -1.0, -1.0))


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**5000, 2**63 - 1], ids=hex)
def test_integers_of_any_size_come_back(number: int) -> None:
    assert again([number]) == [number]


def test_long_bytes_are_not_in_the_structure() -> None:
    parts = encode_state({"a": bytes(5000), "b": bytes(10)})
    assert len(parse(parts[LONG])) == 1
    assert decode_state(parts) == {"a": bytes(5000), "b": bytes(10)}


def test_other_programs_read_the_arrays() -> None:
    """The parts are safetensors files, which that library checks strictly."""
    state = {
        "odd": torch.arange(3, dtype=torch.uint8),
        "wide": torch.arange(5, dtype=torch.float64),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "eight": torch.ones(3).to(torch.float8_e4m3fn),
        "complex": torch.ones(2, dtype=torch.complex64),
        "none": torch.empty(0, 4),
        "array": np.arange(7, dtype=np.int16),
    }
    parts = encode_state(state)
    structure = json.loads(parts[STRUCTURE])["state"]
    tensors = safetensors.torch.load(bytes(parts[TORCH]))
    arrays = safetensors.numpy.load(bytes(parts[NUMPY]))
    for name, value in state.items():
        found = tensors if isinstance(value, torch.Tensor) else arrays
        assert equal(found[next(iter(structure[name].values()))], value), name
    assert equal(again(state), state)


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_arrays_they_are_not(garbage: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        parse(garbage)


@pytest.mark.parametrize(
    "one",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]},
        {"shape": [2]},
        [],
    ],
)
def test_a_header_that_does_not_fit_its_data_is_corrupt(one: object) -> None:
    header = json.dumps({"0": one}).encode()
    with pytest.raises(CorruptCheckpointError):
        parse(len(header).to_bytes(8, "little") + header + bytes(8))


def test_every_array_is_aligned_to_its_items() -> None:
    entries = {
        name: Entry(dtype=dtype, shape=(3,))
        for name, dtype in (("a", "U8"), ("b", "F64"), ("c", "BF16"), ("d", "F32"))
    }
    frame = lay_out(entries)
    for name, size in (("b", 8), ("c", 2), ("d", 4)):
        assert frame.places[name][0] % size == 0


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys.modules[__name__], "TRAP", tmp_path / "sprung")
    return tmp_path / "sprung"


@pytest.mark.parametrize("part", [STRUCTURE, TORCH, NUMPY, LONG])
def test_a_pickle_in_place_of_a_part_is_never_run(trap: Path, part: str) -> None:
    parts = encode_state({"t": torch.ones(1), "n": np.ones(1), "b": bytes(2000)})
    with pytest.raises(CorruptCheckpointError):
        decode_state({**parts, part: pickle.dumps(Malicious())})
    assert not trap.exists()


def test_a_pickle_that_was_asked_for_is_run_by_name_and_not_before(trap: Path) -> None:
    state = again({"odd": Pickled.of(Malicious()), "set": Pickled.of({1, 2}), "long": bytes(2000)})
    assert not trap.exists()
    assert state["set"].load() == {1, 2}
    state["odd"].load()
    assert trap.exists()


class Foreign:
    """An array of another framework, which can become NumPy's, as those of JAX can."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.dtype, self.shape = array, array.dtype, array.shape

    def __array_namespace__(self) -> object:
        return np

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self._array


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float32"])
def test_arrays_of_other_frameworks_come_back_as_numpy_s(dtype: str) -> None:
    bits = np.arange(8 * np.dtype(dtype).itemsize, dtype=np.uint8)  # NaNs and all
    array = bits.view(dtype).reshape(2, 4)
    foreign = Foreign(array)
    parts = encode_state({"leaves": [foreign, foreign]})
    restored = decode_state(parts)["leaves"]
    assert equal(restored[0], array)
    assert restored[0] is restored[1]
    assert list(parts) == [STRUCTURE, NUMPY]


def test_types_that_numpy_lacks_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = encode_state(np.zeros(2, dtype="bfloat16"))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(SpecError, match="pip install ml_dtypes"):
        decode_state(parts)


def test_subclasses_of_dict_come_back_as_dict() -> None:
    assert again(OrderedDict(b=1, a=2)) == {"b": 1, "a": 2}


Pair = namedtuple("Pair", "a b")  # noqa: PYI024  # what somebody may well put into a state


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        Pair(1, 2),
        np.array(["text"]),
        np.array([object()]),
        np.array([1], dtype="M8[s]"),
        np.ma.masked_array([1.0, 2.0], mask=[False, True]),
        1j,
        lambda: None,
        torch.eye(2).to_sparse(),
        torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged),
        random.Random(1),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_what_cannot_be_saved_is_named_with_its_place(value: object) -> None:
    with pytest.raises(SpecError, match=r"state\.model\[1\].* cannot be saved"):
        encode_state({"model": [1, value]})


def test_a_tensor_that_is_spread_over_machines_is_named_with_its_place(tmp_path: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=(tmp_path / "meeting").as_uri(), rank=0, world_size=1
    )
    try:
        weight = distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)), [Shard(0)])
        with pytest.raises(SpecError, match=r"state\.model cannot be saved.* DTensor .*gather it"):
            encode_state({"model": weight})
    finally:
        distributed.destroy_process_group()


@given(st.binary(max_size=50) | st.text().map(str.encode))
def test_garbage_is_never_taken_for_a_state(garbage: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        decode_state({STRUCTURE: garbage})


@pytest.mark.parametrize(
    "node", [{"$torch": "0"}, {"$numpy": "1"}, {"$new": 1}, {"$bytes": 1}, {"$tuple": 1}]
)
def test_a_structure_that_does_not_fit_its_parts_is_corrupt(node: object) -> None:
    structure = json.dumps({"format": "spillway-state/1", "state": node}).encode()
    with pytest.raises(CorruptCheckpointError):
        decode_state({STRUCTURE: structure})


@pytest.mark.parametrize("part", [TORCH, NUMPY])
def test_an_array_part_that_is_garbage_is_corrupt(part: str) -> None:
    parts = encode_state({"t": torch.ones(1), "n": np.ones(1)})
    with pytest.raises(CorruptCheckpointError):
        decode_state({**parts, part: b"garbage" * 10})


def test_a_state_of_another_version_says_so() -> None:
    with pytest.raises(CorruptCheckpointError, match="spillway-state/9"):
        decode_state({STRUCTURE: b'{"format": "spillway-state/9", "state": 1}'})


def test_a_state_without_arrays_imports_no_framework() -> None:
    code = (
        "import sys; from spillway.checkpoints.formats import *;"
        "decode_state(encode_state({'a': [1, 'x', b'y']}));"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
