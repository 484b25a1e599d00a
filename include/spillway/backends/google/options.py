"""What pools of every Google backend may say under `options`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from spillway.errors import SpecError

if TYPE_CHECKING:
    from spillway.model import Pool

_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_SECRET = re.compile(r"projects/[^/]+/secrets/[^/]+/versions/[^/]+")


def _word(text: str) -> str:
    if not text or re.search(r"\s", text):
        raise ValueError("must be one of Google's names, without blanks")
    return text


def _environment(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of an environment variable")
    return variables


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for name, value in labels.items():
        if not (_LABEL.fullmatch(name) and _LABEL_VALUE.fullmatch(value)):
            raise ValueError(
                f"{name}={value} is no label: small letters, digits, _ and -, 63 at most, a letter first"
            )
        if name.startswith(("spillway_", "goog-", "google-")):
            raise ValueError(f"{name!r} is a label of somebody else's; choose another name")
    return labels


def _secrets(secrets: dict[str, str]) -> dict[str, str]:
    for name, where in _environment(secrets).items():
        if not _SECRET.fullmatch(where):
            raise ValueError(
                f"{name} must name a version in Secret Manager: projects/*/secrets/*/versions/*"
            )
    return secrets


Word = Annotated[str, AfterValidator(_word)]
Environment = Annotated[dict[str, str], AfterValidator(_environment)]
Labels = Annotated[dict[str, str], AfterValidator(_labels)]
Secrets = Annotated[dict[str, str], AfterValidator(_secrets)]


class GoogleOptions(BaseModel):
    """Options of every pool at Google.

    Attributes:
        project: None for the project of the connection's credentials.
        region: Where the jobs are, such as `us-central1`.
        image: Container image with `spillway` and what the entry points import.
        python: The interpreter in it.
        environment: Environment variables of every job.
        labels: More labels of every job, such as `{"team": "search"}`; bills are broken down by them.
        service_account: E-mail of the account that jobs run as; None for the project's default.
        network: VPC of the machines.
        start_within: How long a job may wait for machines before the task goes elsewhere; None for ever.
        endpoint: Where the service is, such as a private endpoint's host; an `http://` URL is asked without credentials.
        logging_endpoint: The same for Cloud Logging.
        compute_endpoint: The same for Compute Engine, which is asked about reservations and quotas.
        transport: `rest` where gRPC does not get through.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: Word | None = None
    region: Word
    image: Word
    python: Word = "python3"
    environment: Environment = Field(default_factory=dict)
    labels: Labels = Field(default_factory=dict)
    service_account: Word | None = None
    network: Word | None = None
    start_within: timedelta | None = None
    endpoint: Word | None = None
    logging_endpoint: Word | None = None
    compute_endpoint: Word | None = None
    transport: Literal["grpc", "rest"] = "grpc"


Options = TypeVar("Options", bound=GoogleOptions)


def read_options(pool: Pool, kind: type[Options]) -> Options:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    try:
        return kind.model_validate(dict(pool.options))
    except ValidationError as error:
        problems = "; ".join(
            f"option {'.'.join(str(part) for part in problem['loc']) or 'combination'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SpecError(f"pool {pool.name!r} has a mistake: {problems}") from error
