"""The environment variables that every job gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spillway.backends.google import naming
from spillway.errors import RejectedError
from spillway.model.codec import encode_json

if TYPE_CHECKING:
    from spillway.backends.google.options import GoogleOptions
    from spillway.model import Submission

MAX_SUBMISSION_BYTES: Final = 100_000
"""Linux allows 128 KiB for one environment variable."""


def variables(submission: Submission, options: GoogleOptions, *, backend: str) -> dict[str, str]:
    """Return the environment variables of the job; they hold no secret.

    Raises:
        RejectedError: The submission is too large for one.
    """
    text = encode_json(submission).decode()
    size = len(text.encode())
    if size > MAX_SUBMISSION_BYTES:
        raise RejectedError(
            f"the submission has {size} bytes, and {MAX_SUBMISSION_BYTES} are allowed; put large arguments into a file of"
            " the store and pass its name",
            backend=backend,
            key=submission.key,
        )
    return {
        **options.environment,
        naming.KEY_VARIABLE: submission.key,
        "SPILLWAY_SUBMISSION": text,
    }
