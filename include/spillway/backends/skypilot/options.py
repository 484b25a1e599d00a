"""What a SkyPilot pool may say under `options`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from spillway.errors import SpecError

if TYPE_CHECKING:
    from spillway.model import Pool

# Source: SkyPilot 0.14, sky/utils/schemas.py, the pattern of `resources.infra`.
CLOUDS: Final = frozenset(
    [
        "aws",
        "azure",
        "cudo",
        "do",
        "fluidstack",
        "gcp",
        "hyperbolic",
        "ibm",
        "kubernetes",
        "lambda",
        "mithril",
        "nebius",
        "oci",
        "paperspace",
        "primeintellect",
        "runpod",
        "scp",
        "seeweb",
        "shadeform",
        "slurm",
        "ssh",
        "vast",
        "verda",
        "vsphere",
        "yotta",
    ]
)
OWN_MACHINES: Final = frozenset({"kubernetes", "slurm", "ssh"})
"""Clouds whose machines are cut to size instead of having instance types."""

ON_KUBERNETES: Final = frozenset({"kubernetes", "ssh"})
"""Clouds whose machines are pods, for which SkyPilot waits as long as it is told."""

RESERVING: Final = frozenset({"aws", "gcp"})
"""Clouds in whose reservations SkyPilot starts machines when it is told their names."""

_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_PLACE = re.compile(r"[^/\s*]+( [^/\s*]+)*")  # a space is in names of Paperspace only
_OF_SKYPILOT: Final = "SKYPILOT_"


def _environment(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not _VARIABLE.fullmatch(name) or name.startswith(_OF_SKYPILOT):
            raise ValueError(f"{name!r} is no name of an environment variable, or SkyPilot's own")
    return variables


def _place(text: str) -> str:
    if not _PLACE.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name; the pool says where it is, and SkyPilot chooses nothing"
        )
    return text


class SkyPilotOptions(BaseModel):
    """Options of a SkyPilot pool: one cloud, one region and one kind of machine, so that its price is what placement counts on.

    Attributes:
        cloud: As SkyPilot names it, such as `azure`, `lambda`, `paperspace`, `runpod` or `nebius`.
        region: As the cloud names it; the context of `kubernetes`, the cluster of `slurm`, the node pool of `ssh`.
        zone: As the cloud names it; the partition of `slurm`. None for any of the region's.
        instance_type: As the cloud names it; one's own machines have none, and are cut to what tasks ask for.
        image: Image of the machine, or `docker:` and an image of a container.
        disk_gib: Size of the machine's disk; None for SkyPilot's choice.
        reservations: Names of the cloud's reservations to start machines in; `aws` and `gcp` only.
        accelerators: SkyPilot's name for an accelerator, where it is not our name of it; for one's own machines.
        labels: Tags of the machines, beside ours; a team's name, say.
        environment: Environment variables of every job.
        setup: Shell commands that make a machine ready, such as the installation of the code that tasks run.
        python: Interpreter on the machine, with Spillway.
        idle: How long a machine whose job has ended may wait for its release before it takes itself down; None for ever,
            where the cloud's machines cannot.
        start_within: How long a job may wait for machines before the task goes elsewhere; None for as long as SkyPilot tries.
        workspace: SkyPilot's workspace; None for the user's.
        look_at: How many of the running jobs one observation asks about, in turn, and how many clusters that are not up it looks
            up; which clusters are up, and which launches go on, is seen each time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cloud: str
    region: Annotated[str, AfterValidator(_place)]
    zone: Annotated[str, AfterValidator(_place)] | None = None
    instance_type: str | None = None
    image: str | None = None
    disk_gib: Annotated[int, Field(gt=0)] | None = None
    reservations: tuple[str, ...] = ()
    accelerators: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    environment: Annotated[dict[str, str], AfterValidator(_environment)] = Field(
        default_factory=dict
    )
    setup: str | None = None
    python: str = "python3"
    idle: Annotated[timedelta, Field(ge=timedelta(0))] | None = timedelta(minutes=10)
    start_within: timedelta | None = None
    workspace: str | None = None
    look_at: Annotated[int, Field(ge=1)] = 8

    @model_validator(mode="after")
    def _machines_of_a_cloud_are_named(self) -> Self:
        if self.cloud not in CLOUDS:
            raise ValueError(
                f"cloud: SkyPilot knows none by the name {self.cloud!r}, but {', '.join(sorted(CLOUDS))}"
            )
        if self.instance_type is None and self.cloud not in OWN_MACHINES:
            raise ValueError(
                f"instance_type: machines of {self.cloud} have one; `sky show-gpus --cloud {self.cloud}` lists them"
            )
        if self.reservations and self.cloud not in RESERVING:
            raise ValueError(
                f"reservations: SkyPilot uses those of {', '.join(sorted(RESERVING))} only, not of {self.cloud}"
            )
        return self

    @property
    def infra(self) -> str:
        """Where machines are, in SkyPilot's one word for it."""
        return "/".join(part for part in (self.cloud, self.region, self.zone) if part)


def read_options(pool: Pool) -> SkyPilotOptions:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    try:
        return SkyPilotOptions.model_validate(dict(pool.options))
    except ValidationError as error:
        problems = "; ".join(
            f"option {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}".replace(
                "option : ", "option "
            )
            for problem in error.errors()
        )
        raise SpecError(f"pool {pool.name!r} has a mistake: {problems}") from error
