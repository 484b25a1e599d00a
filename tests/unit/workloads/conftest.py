"""A small dataset made of real text, and a session that is preempted where a test says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import torch

from spillway.runtime import Session
from spillway.workloads import preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dataset")
    output = str(folder / "data")
    session = Session.local(folder / "session")
    planned = preprocess.plan(session, output=output, size="tiny", shards=2, seed=1)
    encoded = [preprocess.encode(session, output=output, shard=shard) for shard in planned]
    preprocess.merge(session, output=output, shards=encoded)
    return output


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session.local(tmp_path / "session")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sample trainables leave their marks; they can be imported here and in the processes of Ray."""
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", here)
    return tmp_path


@pytest.fixture
def leaves_nothing_running() -> Iterator[None]:
    """Fail a test of whose processes some are left."""
    before = set(psutil.Process().children(recursive=True))  # servers that other tests share
    yield
    after = set(psutil.Process().children(recursive=True))
    assert [process.cmdline() for process in after - before] == []


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(threads)
