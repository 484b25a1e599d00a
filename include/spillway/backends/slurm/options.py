"""What a Slurm pool may say under `options`."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from spillway.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.backends.protocol import Connection
    from spillway.model import Pool, Resources

_VARIABLE = re.compile(r"[A-Za-z_]\w*")
# Slurm reads %j and its kin in the name of a log, and one line of `#SBATCH` ends at the line's end.
_UNUSABLE = re.compile(r"[%\n\r\0\\]")


def _word(text: str) -> str:
    if not text or text.startswith("-") or _UNUSABLE.search(text):
        raise ValueError("must be one of Slurm's names, without a leading dash, %, \\ or line ends")
    return text


def _folder(text: str) -> str:
    if not PurePosixPath(text).is_absolute() or _UNUSABLE.search(text):
        raise ValueError("must be an absolute path without %, \\ or line ends")
    return text.rstrip("/")


def _environment(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
    return variables


Word = Annotated[str, AfterValidator(_word)]
Folder = Annotated[str, AfterValidator(_folder)]


class SlurmOptions(BaseModel):
    """Options of a Slurm pool.

    Attributes:
        folder: Folder that the nodes share, where output and marks of jobs go; it has to be there already with REST.
        folder_here: Where this machine sees that folder, if it does; without, REST shows no output.
        partition: None for the cluster's default.
        gres: What every job asks for on each node, such as `gpu:h100:8`; None to make it of the task's accelerators.
        accelerators: Slurm's type for an accelerator of ours, where it is not its name in small letters.
        time_limit: Longest a job may run; past it the task goes on in another.
        notice: How long before the time limit the job is told; None for the pool's grace period.
        start_within: How long a job may wait in Slurm's queue before the task goes elsewhere; None for ever.
        room: `idle` to count what is idle in the partition, `slots` where jobs of others give way to ours.
        container_image: Image that the job runs in; needs the pyxis plugin.
        srun: More arguments of the `srun` that starts the runtime.
        setup: Lines of shell that the job runs first, such as `module load cuda`.
        working_folder: Where the job runs; None for `folder`.
        environment: Environment variables of every job.
        labels: More words in the comment of every job, such as the team's; the key stays there.
        slurm_conf: Which `slurm.conf` the commands use; None for their own default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Folder | None = None
    folder_here: Folder | None = None
    partition: Word | None = None
    qos: Word | None = None
    account: Word | None = None
    reservation: Word | None = None
    constraint: Word | None = None
    gres: Word | None = None
    accelerators: dict[str, Word] = Field(default_factory=dict)
    time_limit: timedelta | None = None
    notice: timedelta | None = None
    start_within: timedelta | None = None
    room: Literal["idle", "slots"] = "idle"
    container_image: Word | None = None
    srun: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    python: str = "python3"
    working_folder: Folder | None = None
    environment: Annotated[dict[str, str], AfterValidator(_environment)] = Field(
        default_factory=dict
    )
    labels: dict[Annotated[str, Field(min_length=1)], str] = Field(default_factory=dict)
    slurm_conf: Folder | None = None

    def shared_folder(self) -> str:
        """Return `folder`, which `read_options` has made sure of."""
        assert self.folder is not None
        return self.folder

    def gres_of(self, resources: Resources) -> str | None:
        """Return what a job of these resources asks for on each node, or None."""
        if self.gres is not None:
            return self.gres
        if resources.accelerator is None or resources.accelerator_count == 0:
            return None
        kind = self.accelerators.get(resources.accelerator, resources.accelerator.lower())
        return f"gpu:{kind}:{resources.accelerator_count}"


def read_options(pool: Pool, *, home: Path, connection: Connection | None) -> SlurmOptions:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    try:
        options = SlurmOptions.model_validate(dict(pool.options))
    except ValidationError as error:
        problems = "; ".join(
            f"option {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SpecError(f"pool {pool.name!r} has a mistake: {problems}") from error
    if options.folder is not None:
        return options
    if connection is not None and connection.host:
        raise SpecError(
            f"pool {pool.name!r} needs the option folder: an absolute path that the nodes of {connection.host} share,"
            " where output and marks of jobs go"
        )
    own = home.absolute() / "slurm" / pool.name
    return options.model_copy(update={"folder": str(own)})
