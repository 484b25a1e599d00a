"""A checkpoint exists once its manifest does: write, commit, find, verify, prune."""

from spillway.checkpoints.commit import claim, commit
from spillway.checkpoints.find import Found, Skipped, latest
from spillway.checkpoints.folder import FolderStore
from spillway.checkpoints.layout import CheckpointName
from spillway.checkpoints.open import open_store
from spillway.checkpoints.prune import prune
from spillway.checkpoints.readers import reading
from spillway.checkpoints.store import ObjectStore

__all__ = [
    "CheckpointName",
    "FolderStore",
    "Found",
    "ObjectStore",
    "Skipped",
    "claim",
    "commit",
    "latest",
    "open_store",
    "prune",
    "reading",
]
