"""What a Ray pool may say under `options`."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from spillway.errors import SpecError

if TYPE_CHECKING:
    from spillway.model import Pool, Resources

_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_URI = re.compile(r"(https|s3|gs|gcs|azure|abfss|file)://\S+")

_OF_RAY: Final = frozenset({"job_submission_id", "job_name"})
"""What Ray keeps in a job's metadata. Source: Ray 2.60, python/ray/dashboard/modules/job/common.py."""


def _environment(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
    return variables


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for name in labels:
        if name.startswith("spillway_") or name in _OF_RAY:
            raise ValueError(f"{name!r} is ours or Ray's own; choose another name")
    return labels


def _working_dir(text: str) -> str:
    if "://" in text:
        if not _URI.fullmatch(text):
            raise ValueError(
                "must be a folder here, or a URI that Ray can fetch, such as s3://bucket/code.zip"
            )
        return text
    if not Path(text).is_dir():
        raise ValueError("there is no such folder on this machine")
    return text


class RayOptions(BaseModel):
    """Options of a Ray pool.

    Attributes:
        working_dir: Where jobs run and import from: a folder of this machine, which is packed and sent, or a URI.
        excludes: Patterns of what in that folder is not sent, beside `.git`, `.venv` and caches.
        image_uri: Image that jobs run in; Ray allows no `working_dir` and no `pip` beside it.
        pip: Packages that are installed for jobs.
        environment: Environment variables of every job.
        labels: More of each job's metadata, beside ours; a team's name, say.
        python: Interpreter on the nodes.
        driver_cpus: What a job of the launcher `ray` asks for itself; what it starts on the cluster asks for its own.
        accelerators: Ray's type for an accelerator, where it is not our name of it.
        resources: More of Ray's resources that every job asks for.
        start_within: How long a job may wait for room before the task goes elsewhere; None for as long as Ray lets it.
        room: `idle` to count what the nodes have left, `slots` where the cluster grows when it is asked to.
        ray_version: What the cluster has to be; None for that of this machine, where one is installed, `any` for any.
        python_version: What its Python has to be, such as `3.12`; None for any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    working_dir: Annotated[str, AfterValidator(_working_dir)] | None = None
    excludes: tuple[str, ...] = ()
    image_uri: str | None = None
    pip: tuple[str, ...] = ()
    environment: Annotated[dict[str, str], AfterValidator(_environment)] = Field(
        default_factory=dict
    )
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = Field(default_factory=dict)
    python: str = "python"
    driver_cpus: NonNegativeFloat = 0.0
    accelerators: dict[str, str] = Field(default_factory=dict)
    resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    start_within: timedelta | None = None
    room: Literal["idle", "slots"] = "idle"
    ray_version: str | None = None
    python_version: str | None = None

    @model_validator(mode="after")
    def _image_stands_alone(self) -> Self:
        if self.image_uri is not None and (self.working_dir is not None or self.pip):
            raise ValueError(
                "image_uri allows no working_dir and no pip beside it: put both into the image"
            )
        return self

    def accelerator_of(self, resources: Resources) -> str | None:
        """Return Ray's resource for the accelerator's model, or None where none is asked for."""
        if resources.accelerator is None or resources.accelerator_count == 0:
            return None
        kind = self.accelerators.get(resources.accelerator, resources.accelerator)
        return f"accelerator_type:{kind}"


def read_options(pool: Pool) -> RayOptions:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    try:
        return RayOptions.model_validate(dict(pool.options))
    except ValidationError as error:
        problems = "; ".join(
            f"option {'.'.join(str(part) for part in problem['loc']) or 'image_uri'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SpecError(f"pool {pool.name!r} has a mistake: {problems}") from error
