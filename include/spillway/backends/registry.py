"""Which backends there are: ours in a table, others' through the entry point group `spillway.backends`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spillway.backends.protocol import Backend, BackendFactory, Connection
    from spillway.model import Pool

GROUP = "spillway.backends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One backend.

    Attributes:
        target: `module:Class` of its `BackendFactory`.
        extra: What to install with Spillway for it; None when it needs nothing more.
    """

    target: str
    extra: str | None = None


TABLE: Mapping[str, Row] = MappingProxyType(
    {
        "aws_batch": Row(target="spillway.backends.aws_batch.backend:AwsBatchBackend", extra="aws"),
        "aws_sagemaker": Row(
            target="spillway.backends.aws_sagemaker.backend:AwsSageMakerBackend", extra="aws"
        ),
        "google_batch": Row(
            target="spillway.backends.google.batch.backend:GoogleBatchBackend", extra="google"
        ),
        "google_tpu": Row(
            target="spillway.backends.google.tpu.backend:GoogleTpuBackend", extra="google"
        ),
        "google_vertex": Row(
            target="spillway.backends.google.vertex.backend:GoogleVertexBackend", extra="google"
        ),
        "kubernetes": Row(
            target="spillway.backends.kubernetes.backend:KubernetesBackend", extra="kubernetes"
        ),
        "local": Row(target="spillway.backends.local.backend:LocalBackend"),
        "ray": Row(target="spillway.backends.ray_jobs.backend:RayBackend", extra="ray"),
        "skypilot": Row(
            target="spillway.backends.skypilot.backend:SkyPilotBackend", extra="skypilot"
        ),
        "slurm": Row(target="spillway.backends.slurm.backend:SlurmBackend", extra="slurm"),
    }
)


def names() -> frozenset[str]:
    """Return the backends that a pools file may name."""
    return frozenset(_joined()) | frozenset(TABLE)


def load(
    pool: Pool,
    *,
    home: Path,
    connection: Connection | None = None,
    table: Mapping[str, Row] = TABLE,
) -> Backend:
    """Return the backend of `pool`; `home` is a folder of this machine where it may keep state.

    Raises:
        SpecError: There is no such backend, what it needs is not installed, or the pool's options have a mistake.
    """
    # Ours first: to find those that others have joined, the metadata of everything that is installed is read.
    row = table.get(pool.backend) or _joined().get(pool.backend)
    if row is None:
        known = ", ".join(sorted({*table, *_joined()}))
        raise SpecError(
            f"pool {pool.name!r} has the unknown backend {pool.backend!r}; known are {known}"
        )
    return _factory(pool, row)(pool, home=home, connection=connection)


def _joined() -> dict[str, Row]:
    return {point.name: Row(target=point.value) for point in entry_points(group=GROUP)}


def _factory(pool: Pool, row: Row) -> BackendFactory:
    module, _, name = row.target.partition(":")
    try:
        return cast("BackendFactory", getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        if row.extra is None or (error.name or "").startswith("spillway"):
            raise
        raise SpecError(
            f"pool {pool.name!r} uses the backend {pool.backend!r}, which needs {error.name}: "
            f"pip install 'spillway[{row.extra}]'"
        ) from error
