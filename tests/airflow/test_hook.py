"""What opening a deployment says of it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

POOLS = """
pools:
  - name: here
    backend: local
    market: on_demand
    slots: 1
    shape: {{cpus: 1, memory_gib: 2}}
    list_usd_per_hour: 0.05
  - name: there
    backend: {backend}
    market: on_demand
    slots: 1
    shape: {{cpus: 1, memory_gib: 2}}
    list_usd_per_hour: 0.05
    options: {options}
"""
SLURM = "{partition: spot, folder: /shared, python: /opt/spillway/bin/python}"


def open_deployment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, backend: str, options: str, **extra: str
) -> None:
    from spillway.airflow.hook import SpillwayHook

    pools_file = folder / "pools.yaml"
    pools_file.write_text(POOLS.format(backend=backend, options=options))
    connection = {"conn_type": "spillway", "extra": {"pools_file": str(pools_file), **extra}}
    monkeypatch.setenv("AIRFLOW_CONN_SPILLWAY_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__SPILLWAY__HOME", str(folder))
    SpillwayHook().dispatcher().ledger.close()


@pytest.mark.parametrize(
    ("backend", "extra", "warns"),
    [
        ("slurm", {}, True),
        ("slurm", {"store_url": "s3://bucket/folder"}, False),
        ("slurm", {"store_url": "file:///shared/checkpoints"}, False),
        ("local", {}, False),
    ],
)
def test_checkpoints_that_only_this_machine_can_read_are_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    backend: str,
    extra: dict[str, str],
    warns: bool,
) -> None:
    options = SLURM if backend == "slurm" else "{}"
    # Airflow, once imported, gives the root logger handlers of its own.
    monkeypatch.setattr(logging.getLogger("spillway.airflow.hook"), "handlers", [caplog.handler])
    monkeypatch.setattr(logging.getLogger("spillway.airflow.hook"), "propagate", False)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            open_deployment(tmp_path, monkeypatch, backend=backend, options=options, **extra)
    assert caplog.text.count("only this machine can write and resume from them") == warns
    assert not warns or "jobs on there can not" in caplog.text
