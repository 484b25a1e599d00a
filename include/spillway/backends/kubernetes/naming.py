"""How objects carry our keys: a name to find them by, labels to list them by, and the whole key in an annotation."""

from __future__ import annotations

import hashlib
import re
from typing import Final

POOL: Final = "spillway/pool"
JOB: Final = "spillway/job"
DAG: Final = "spillway/dag"
TASK: Final = "spillway/task"
KEY: Final = "spillway/key"
NODES: Final = "spillway/nodes"
ROLE: Final = "spillway/role"
MANAGER: Final = "spillway"
"""Our name as the field manager of server-side apply, and in `app.kubernetes.io/managed-by`."""

# A pod of a gang of a JobSet is called <name>-w-0-<index>-<5 letters>, and a name of a Service ends at 63 letters.
# KubeRay takes 47 for a RayJob.
_READABLE_LENGTH: Final = 15
_LABEL_LENGTH: Final = 63


def object_name(pool: str, key: str) -> str:
    """Return the object's name: a DNS label of 40 letters, digits and dashes at most, and no two keys alike."""
    digest = hashlib.sha256(f"{pool}\n{key}".encode()).hexdigest()[:20]
    readable = re.sub(r"[^a-z0-9]+", "-", _part(key, -3).lower())[:_READABLE_LENGTH].strip("-")
    return f"sw-{digest}-{readable}".rstrip("-")


def pool_label(pool: str) -> str:
    """Return the value of the label `spillway/pool`: no two pools alike, whatever their names."""
    digest = hashlib.sha256(pool.encode()).hexdigest()[:10]
    return f"{label_value(pool)[:50]}.{digest}".lstrip("._-")


def label_value(text: str) -> str:
    """Return `text` as a label may have it; for people, since two texts may become alike."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_LABEL_LENGTH].strip("._-")


def labels(pool: str, key: str) -> dict[str, str]:
    """Return the labels of everything that is made for the key."""
    return {
        "app.kubernetes.io/managed-by": MANAGER,
        POOL: pool_label(pool),
        JOB: object_name(pool, key),
        DAG: label_value(_part(key, 0)),
        TASK: label_value(_part(key, -3)),
    }


def _part(key: str, number: int) -> str:
    """Return one part of `dag/run/task/map index/attempt`; the whole of a key that has fewer."""
    parts = key.split("/")
    return parts[number] if len(parts) >= 5 else key
