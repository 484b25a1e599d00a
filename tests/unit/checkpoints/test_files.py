"""Files and folders as checkpoints: whole, in pieces, and never outside the folder they are restored into."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints.files import INDEX, Files, Index, SavedFile, write_files
from spillway.checkpoints.staging import Staging
from spillway.errors import CorruptCheckpointError, SpecError
from spillway.model.codec import encode_json

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 1000


def saved(root: Path) -> dict[str, bytes]:
    files = Files(root, piece_bytes=PIECE)
    room = Staging().room(files.room)
    return {name: bytes(data) for name, data in files.parts(room, beside={}).items()}


def contents(root: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "nothing").mkdir()
    for name, size in (("a", 0), ("b ü", 1), ("deep/c", PIECE), ("deep/er/d", 2 * PIECE + 7)):
        (root / name).write_bytes(os.urandom(size))
    (root / "link").symlink_to("deep/c")
    return root


def test_a_folder_comes_back_as_it_was(folder: Path, tmp_path: Path) -> None:
    assert contents(write_files(saved(folder), tmp_path / "new" / "place")) == contents(folder)


def test_a_single_file_comes_back_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"numbers")
    restored = write_files(saved(tmp_path / "weights.bin"), tmp_path / "new")
    assert contents(restored) == {"weights.bin": b"numbers"}


def test_a_large_file_is_never_in_memory_whole(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(64 << 20))
    files = Files(tmp_path / "large", piece_bytes=1 << 20)
    tracemalloc.start()
    room = Staging().room(files.room)
    assert sum(len(memoryview(data)) for data in files.parts(room, beside={}).values()) > 64 << 20
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "gone"])
def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path, change: str) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(PIECE))
    os.utime(path, (1, 1))
    files = Files(path, piece_bytes=PIECE)
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes({"longer": PIECE + 1, "shorter": PIECE - 1, "other": PIECE}[change]))
    with pytest.raises(SpecError, match=r"weights (changed|to save it: No such file)"):
        dict(files.parts(Staging().room(PIECE), beside={}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "neither a file nor a folder"),
        ("fifo", "neither a file nor a folder"),
        ("broken", "No such file"),
        ("elsewhere", "link to a folder"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path: Path, name: str, message: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    match name:
        case "fifo":
            os.mkfifo(root / name)
        case "broken":
            (root / name).symlink_to("nowhere")
        case "elsewhere":
            (root / name).symlink_to(tmp_path)
        case _:
            root = root / name
    with pytest.raises(SpecError, match=rf"{name} cannot be saved: .*{message}"):
        Files(root)


@pytest.mark.parametrize("path", ["../outside", "/outside", "a/../../outside", "", "a\0b"])
def test_a_checkpoint_never_writes_outside_the_folder(tmp_path: Path, path: str) -> None:
    index = Index(folders=(), files=(SavedFile(path=path, size=1),))
    parts = {INDEX: encode_json(index), "files/000000-000000": b"x"}
    with pytest.raises(CorruptCheckpointError, match="outside"):
        write_files(parts, tmp_path / "into")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_not_restored_into(folder: Path) -> None:
    with pytest.raises(SpecError, match="not empty: give an empty or a new folder"):
        write_files(saved(folder), folder)


@pytest.mark.parametrize("index", [b"", b"{}", b'{"folders": [], "files": [], "piece_bytes": 0}'])
def test_an_index_that_is_none_is_corrupt(tmp_path: Path, index: bytes) -> None:
    with pytest.raises(CorruptCheckpointError):
        write_files({INDEX: index}, tmp_path / "into")


def test_a_checkpoint_without_files_says_so(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpointError, match="holds no files"):
        write_files({}, tmp_path / "into")


def test_a_missing_piece_is_corrupt(folder: Path, tmp_path: Path) -> None:
    parts = saved(folder)
    del parts["files/000003-000001"]
    with pytest.raises(CorruptCheckpointError, match=r"lacks a piece of .*er/d"):
        write_files(parts, tmp_path / "new")
