from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import CheckpointName, FolderStore, claim, commit, latest, open_store
from spillway.errors import StoreError, StoreFullError, StoreUrlError
from spillway.testing.store_suite import NOW, StoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from spillway.checkpoints import FolderStore
write = os.write
os.write = lambda descriptor, data: write(descriptor, data[:4]) and os.kill(os.getpid(), 9)
FolderStore(Path(sys.argv[1])).put("a/b", b"half of it")
"""


class TestFolderStore(StoreContract):
    @pytest.fixture
    def store_url(self, tmp_path: Path) -> str:
        return (tmp_path / "store").as_uri()


@pytest.fixture
def small_files() -> Iterator[None]:
    """Let no file of this process grow past 64 KiB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_is_full_is_an_error_with_a_remedy_and_loses_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    claim(store, "task", 1)
    commit(store, "task", CheckpointName(token=1, step=1), {"state": b"small"}, now=NOW)
    before = files(tmp_path)
    parts = {"small": b"fits", "large": bytes(1 << 20)}
    with pytest.raises(StoreFullError, match=r"cannot write .*large.*: raise the limit"):
        commit(store, "task", CheckpointName(token=1, step=2), parts, now=NOW)
    found = latest(store, "task")
    assert found is not None
    assert found.manifest.step == 1
    assert files(tmp_path) == before  # nor does the half of it take up what little room there is


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FolderStore(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        store.put("a", b"")


def test_a_folder_that_is_not_writable_is_an_error_with_a_remedy() -> None:
    """The kernel's own folder takes no files, not even from root."""
    with pytest.raises(StoreError, match=r"cannot write /proc/spillway/a: .*folder"):
        FolderStore(Path("/proc/spillway")).put("a", b"")


def test_a_writer_that_dies_leaves_no_object_and_its_rest_is_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_AND_DIE, str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(files(tmp_path)) == 1
    store = FolderStore(tmp_path)
    assert store.get("a/b") is None
    assert store.list("a") == []
    store.put("c", b"")
    assert files(tmp_path) == [tmp_path / "c"]


def test_what_a_live_writer_has_begun_is_left_alone(tmp_path: Path) -> None:
    slow, quick = FolderStore(tmp_path), FolderStore(tmp_path)
    with slow._partial(b"in the middle of it") as partial:
        quick.put("a", b"")
        assert partial.read_bytes() == b"in the middle of it"


@pytest.mark.parametrize(
    ("when", "at"), [("before", 0), ("before", 1), ("after", 0), ("after", 1), ("after", 2)]
)
def test_folders_that_another_removes_as_empty_while_they_are_made_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, at: int
) -> None:
    make, made = os.mkdir, list[Path]()

    def make_beside_another(path: Path, mode: int) -> None:
        made.append(path)
        if when == "before" and len(made) == at + 2:
            made[at].rmdir()
        make(path, mode)
        if when == "after" and len(made) == at + 1:
            path.rmdir()

    store = FolderStore(tmp_path)
    store.put("other", b"")
    monkeypatch.setattr(os, "mkdir", make_beside_another)
    store.put("a/b/c/d", b"whole")
    assert store.get("a/b/c/d") == b"whole"


def test_urls_of_folders_open_them(tmp_path: Path) -> None:
    folder = tmp_path / "with space & ümlaut"
    store = open_store(folder.as_uri())
    store.put("a", b"1")
    assert (folder / "a").read_bytes() == b"1"


@pytest.mark.parametrize("url", ["s3x://bucket/a", "/just/a/path", "", "C:\\folder"])
def test_an_unknown_scheme_is_told_which_are_known(url: str) -> None:
    with pytest.raises(StoreUrlError, match="file://"):
        open_store(url)


@pytest.mark.parametrize("url", ["file://relative/path", "file:relative"])
def test_a_folder_that_is_not_absolute_is_refused(url: str) -> None:
    with pytest.raises(StoreUrlError, match="three slashes"):
        open_store(url)
