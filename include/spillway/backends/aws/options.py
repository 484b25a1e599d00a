"""What the pools of all of AWS's backends may say under `options`, and how mistakes in it are told."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from spillway.errors import SpecError

if TYPE_CHECKING:
    from spillway.model import Pool

_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_ARN = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:\d*:\S+")
_TAG = re.compile(r"[\w .:/=+@-]*")
_RESERVED_TAGS = ("aws:", "spillway:")


def _arn(text: str) -> str:
    if not _ARN.fullmatch(text):
        raise ValueError("must be an ARN, such as arn:aws:iam::123456789012:role/spillway-job")
    return text


def _word(text: str) -> str:
    if not text or re.search(r"\s", text):
        raise ValueError("must be a name without blanks")
    return text


def _environment(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not _VARIABLE.fullmatch(name) or name.startswith(("AWS_BATCH", "SPILLWAY_SUBMISSION")):
            raise ValueError(f"{name!r} is no name of an environment variable, or not yours to set")
    return variables


def _tags(tags: dict[str, str]) -> dict[str, str]:
    for name, value in tags.items():
        if not name or name.startswith(_RESERVED_TAGS) or len(name) > 128 or len(value) > 256:
            raise ValueError(
                f"{name!r} is no tag of yours: 128 characters at most, values 256, and no {_RESERVED_TAGS} before it"
            )
        if not _TAG.fullmatch(name + value):
            raise ValueError(f"tag {name!r} has more than letters, digits, blanks and _.:/=+-@")
    return tags


Arn = Annotated[str, AfterValidator(_arn)]
Word = Annotated[str, AfterValidator(_word)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]
Tags = Annotated[dict[str, str], AfterValidator(_tags)]
Minutes = Annotated[timedelta, Field(ge=timedelta(seconds=60))]


class AwsOptions(BaseModel):
    """Options that every pool of AWS may have.

    Attributes:
        region: None for the connection's own.
        image: Container image with `spillway` and what the entry points import.
        python: The image's interpreter.
        environment: Environment variables of every job.
        tags: On every job and what it runs on, such as the team that pays.
        time_limit: Longest a job may run; past it the task goes on in another. At least a minute.
        start_within: How long a job may wait for capacity before the task goes elsewhere; None for ever.
        min_placement_score: Spot placement score below which a spot pool has no room, from 1 to 10; None not to ask.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: Word | None = None
    image: Word
    python: str = "python3"
    environment: Environment = Field(default_factory=dict)
    tags: Tags = Field(default_factory=dict)
    time_limit: Minutes | None = None
    start_within: timedelta | None = None
    min_placement_score: Annotated[int, Field(ge=1, le=10)] | None = None


Options = TypeVar("Options", bound=AwsOptions)


def read(kind: type[Options], pool: Pool) -> Options:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    try:
        return kind.model_validate(dict(pool.options))
    except ValidationError as error:
        problems = "; ".join(
            f"option {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SpecError(f"pool {pool.name!r} has a mistake: {problems}") from error
