"""Large buffers go past the page cache, and always arrive whole."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.checkpoints import FolderStore
from spillway.checkpoints.direct_io import LEAST_BYTES, write_all
from spillway.checkpoints.staging import ALIGNMENT, Staging

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED_MEMORY = Path("/dev/shm")  # a file system without a disk


def filled(size: int) -> memoryview:
    room = Staging().room(size)
    pattern = bytes(range(251))
    room[:] = (pattern * (size // len(pattern) + 1))[:size]
    return room


def write(folder: Path, data: bytes | memoryview) -> bytes:
    path = folder / "file"
    with path.open("wb", buffering=0) as file:
        write_all(file.fileno(), data)
    return path.read_bytes()


@given(st.integers(-2, 2), st.integers(0, 3), st.integers(0, 9), st.booleans())
@settings(max_examples=30, deadline=None)
def test_every_byte_arrives_whatever_size_and_alignment(
    odd: int, blocks: int, start: int, read_only: bool
) -> None:
    data = filled(LEAST_BYTES + blocks * ALIGNMENT + odd + start)[start:]
    with tempfile.TemporaryDirectory() as folder:
        assert write(Path(folder), bytes(data) if read_only else data) == bytes(data)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, int]]:
    """Return what was written by each call: whether past the cache, and how much."""
    seen: list[tuple[bool, int]] = []
    write_for_real: Callable[[int, bytes], int] = os.write

    def noting(descriptor: int, data: bytes) -> int:
        written = write_for_real(descriptor, data)
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        seen.append((bool(flags & os.O_DIRECT), written))
        return written

    monkeypatch.setattr(os, "write", noting)
    return seen


def takes_direct_writes(folder: Path) -> bool:
    try:
        os.close(os.open(folder / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


def test_aligned_memory_goes_past_the_cache_in_one_piece(
    tmp_path: Path, writes: list[tuple[bool, int]]
) -> None:
    if not takes_direct_writes(tmp_path):
        pytest.skip("the file system of the temporary folder has no O_DIRECT")
    FolderStore(tmp_path).put("a", filled(LEAST_BYTES + 5))
    assert writes == [(True, LEAST_BYTES), (False, 5)]
    assert (tmp_path / "a").read_bytes() == bytes(filled(LEAST_BYTES + 5))


def test_small_objects_go_through_the_cache(tmp_path: Path, writes: list[tuple[bool, int]]) -> None:
    FolderStore(tmp_path).put("a", b"small")
    assert writes == [(False, 5)]


def test_a_file_system_that_refuses_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return control(descriptor, command, argument)

    control = fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    data = filled(LEAST_BYTES)
    assert write(tmp_path, data) == bytes(data)


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no file system in memory here")
def test_a_file_system_in_memory_takes_large_objects() -> None:
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        data = filled(LEAST_BYTES + 1)[1:]
        assert write(Path(folder), data) == bytes(data)


def test_memory_is_allocated_once_and_grows_when_it_must() -> None:
    staging = Staging()
    staging.room(10)[:] = b"0123456789"
    before = staging.size
    assert bytes(staging.room(4)) == b"0123"
    assert staging.size == before
    staging.room(before + 1)
    assert staging.size > before
