"""A store's folder as a file system: what one process writes there, another reads."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import open_store
from spillway.checkpoints.arrow_files import arrow_folder
from spillway.errors import StoreError
from spillway.testing.bucket_servers import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

fs = pytest.importorskip("pyarrow.fs")

PATIENCE = timedelta(seconds=20)


@pytest.fixture(params=["folder", "s3"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    if request.param == "folder":
        yield (tmp_path / "a store").as_uri()
        return
    with s3_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.url("some/folder")


def test_a_folder_goes_there_and_comes_back_and_is_deleted(url: str, tmp_path: Path) -> None:
    (tmp_path / "from" / "below").mkdir(parents=True)
    (tmp_path / "from" / "below" / "state").write_bytes(b"1" * 100_000)
    files, path = arrow_folder(url, "task/trials", patience=PATIENCE)
    files.create_dir(f"{path}/3")
    fs.copy_files(str(tmp_path / "from"), f"{path}/3", destination_filesystem=files)
    assert open_store(url).list("task") == ["task/trials/3/below/state"]

    elsewhere = pickle.loads(pickle.dumps(files))
    fs.copy_files(f"{path}/3", str(tmp_path / "to"), source_filesystem=elsewhere)
    assert (tmp_path / "to" / "below" / "state").read_bytes() == b"1" * 100_000
    files.delete_dir(path)
    assert open_store(url).list("task") == []


def test_a_url_that_is_wrong_is_told() -> None:
    with pytest.raises(StoreError, match="names no bucket"):
        arrow_folder("s3:///x", "a", patience=PATIENCE)
