"""Preprocessing with Ray Data writes what the embedded way writes; its Ray is real, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from spillway.checkpoints import FolderStore
from spillway.errors import SpecError
from spillway.workloads import corpus, preprocess

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.runtime import Session

_PROGRAM = """
import json, sys
from spillway.runtime import Session
from spillway.workloads import preprocess
output, session, shard = json.loads(sys.argv[1])
print(json.dumps(preprocess.encode(Session.local(session), output=output, shard=shard, engine="ray")))
"""


# What a job of a Ray cluster finds in its environment; that cluster has no room for more than the job itself.
_OF_A_JOB = {
    "RAY_ADDRESS": "127.0.0.1:1",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {"working_dir": "gcs://_ray_pkg_of_it.zip"}}',
}


def plan(session: Session, output: Path) -> list[dict[str, object]]:
    documents = [
        corpus.Document(path=f"{number}.py", text=f"def f{number}():\n    return {number}\n" * 5)
        for number in range(150)
    ]
    return preprocess.plan_documents(session, documents, output=str(output), shards=1)


def test_ray_data_writes_the_same_bytes(session: Session, tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    one, other = tmp_path / "embedded", tmp_path / "ray"
    (shard,) = plan(session, one)
    embedded = preprocess.encode(session, output=str(one), shard=shard)
    plan(session, other)
    arguments = json.dumps([str(other), str(tmp_path / "ray-session"), shard])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, arguments],
        env={**os.environ, **_OF_A_JOB},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == embedded
    for file in embedded["files"]:
        assert FolderStore(one).get(file["path"]) == FolderStore(other).get(file["path"])


def test_an_unknown_engine_is_refused(session: Session, tmp_path: Path) -> None:
    (shard,) = plan(session, tmp_path / "data")
    with pytest.raises(SpecError, match="give embedded or ray"):
        preprocess.encode(session, output=str(tmp_path / "data"), shard=shard, engine="spark")
