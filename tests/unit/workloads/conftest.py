"""A small dataset made of real text, and a session that is preempted where a test says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from spillway.runtime import Session
from spillway.workloads import preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(threads)
