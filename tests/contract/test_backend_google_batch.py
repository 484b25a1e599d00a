"""The contract of Google Cloud Batch over gRPC, on a made-up Google Cloud that really runs the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contract.google_world import GoogleWorld
from spillway.testing.backend_suite import BackendContract
from spillway.testing.google_server import GoogleServer, google_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleServer]:
    with google_server(tmp_path_factory.mktemp("google")) as server:
        yield server


class TestGoogleBatch(BackendContract):
    @pytest.fixture
    def world(self, server: GoogleServer, tmp_path: Path) -> Iterator[GoogleWorld]:
        world = GoogleWorld(server, tmp_path)
        yield world
        world.release_all()
