"""Checkpoints of Ray Tune and Ray Train as ours, and back: theirs are folders, so ours hold the folder's files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ray.train
    from pydantic import JsonValue

    from spillway.runtime.session import Checkpoint, Session


def save_ray(
    session: Session, step: int, checkpoint: ray.train.Checkpoint, **metadata: JsonValue
) -> None:
    """Save what Ray's checkpoint holds, wherever Ray keeps it; raises what `Session.checkpoint` does."""
    with checkpoint.as_directory() as folder:
        session.checkpoint(step, files=folder, **metadata)


def to_ray(
    checkpoint: Checkpoint, into: Path | str | None = None, *, kind: Any = None
) -> ray.train.Checkpoint:
    """Return a checkpoint as Ray's, with its files in `into`, or in a new temporary folder that is left to Ray.

    Args:
        checkpoint: One that was saved with files.
        into: A new or empty folder.
        kind: Ray's class: `ray.train.Checkpoint`, which is the default, or `ray.tune.Checkpoint`.

    Raises:
        SpecError: The folder cannot be used.
        CorruptCheckpointError: No files were saved with it.
    """
    if kind is None:
        from ray.train import Checkpoint as kind  # noqa: N813  # a class, passed as a value
    folder = checkpoint.files(Path(into) if into else Path(tempfile.mkdtemp(prefix="spillway-")))
    made: ray.train.Checkpoint = kind.from_directory(str(folder))
    return made
