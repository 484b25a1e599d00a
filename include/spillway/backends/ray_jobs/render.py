"""The request that starts a job. Pure."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.ray_jobs import naming
from spillway.backends.ray_jobs.failures import NAME
from spillway.errors import RejectedError
from spillway.model import Launcher
from spillway.model.codec import encode_json
from spillway.runtime.gang.ray_node import GIVEN

if TYPE_CHECKING:
    from spillway.backends.ray_jobs.options import RayOptions
    from spillway.model import Submission

MAX_SUBMISSION_BYTES: Final = 50_000
"""Linux allows 128 KiB for one environment variable, and Ray sends ours once more inside of another, with quotes escaped."""

_GIB: Final = 1 << 30
_OF_A_KIND: Final = 0.001
"""How much of `accelerator_type:...` a job asks for: Ray gives each node one, and only where to run is meant."""


def render(
    submission: Submission, options: RayOptions, *, working_dir: str | None
) -> dict[str, Any]:
    """Return the body of `POST /api/jobs/`; it holds no secret.

    Args:
        submission: What to run.
        options: The pool's.
        working_dir: URI of the code, when there is any.

    Raises:
        RejectedError: The submission is too large for an environment variable, or wants what Ray jobs cannot do.

    Source: Ray, docs.ray.io/en/latest/cluster/running-applications/job-submission/api.html.
    """
    if submission.nodes > 1 and submission.launcher is not Launcher.RAY:
        raise RejectedError(
            f"{submission.key} wants {submission.nodes} nodes by the launcher {submission.launcher.value!r}, and a job of "
            "Ray starts on one: use launcher='ray', which has the whole cluster",
            backend=NAME,
            key=submission.key,
        )
    return {
        "entrypoint": f"exec {shlex.quote(options.python)} -m spillway.runtime",
        "submission_id": naming.submission_id(submission.pool, submission.key),
        "metadata": {
            **options.labels,
            **naming.metadata(submission.pool, submission.key, submission.nodes),
        },
        "runtime_env": _runtime_env(submission, options, working_dir),
        **_resources(submission, options),
    }


def whole(quantity: float) -> float:
    """Return the quantity as Ray takes it: a fraction of one, or a whole number."""
    return quantity if quantity <= 1 else math.ceil(quantity)


def _runtime_env(
    submission: Submission, options: RayOptions, working_dir: str | None
) -> dict[str, Any]:
    parts = {
        "env_vars": _variables(submission, options),
        "working_dir": working_dir,
        "image_uri": options.image_uri,
        "pip": list(options.pip) or None,
    }
    return {name: value for name, value in parts.items() if value is not None}


def _variables(submission: Submission, options: RayOptions) -> dict[str, str]:
    text = encode_json(submission).decode()
    if len(text.encode()) > MAX_SUBMISSION_BYTES:
        raise RejectedError(
            f"the arguments of {submission.key} are too large to send ({len(text.encode())} bytes, "
            f"{MAX_SUBMISSION_BYTES} are allowed); write them to a file and pass where it is",
            backend=NAME,
            key=submission.key,
        )
    return {
        **options.environment,
        GIVEN: "1",
        # Read by the process of Ray that stops the job: what it waits between SIGTERM and SIGKILL, 3 s by default.
        "RAY_JOB_STOP_WAIT_TIME_S": str(max(math.ceil(submission.grace_period.total_seconds()), 1)),
        "SPILLWAY_SUBMISSION": text,
    }


def _resources(submission: Submission, options: RayOptions) -> dict[str, Any]:
    """Return what the job holds while it runs; one that works through the cluster must leave that to its workers."""
    if submission.launcher is Launcher.RAY:
        held = {"entrypoint_num_cpus": whole(options.driver_cpus)}
        return {name: value for name, value in held.items() if value > 0}
    wants = submission.resources
    kind = options.accelerator_of(wants)
    custom = {**options.resources, **({kind: _OF_A_KIND} if kind else {})}
    parts = {
        "entrypoint_num_cpus": whole(wants.cpus),
        "entrypoint_num_gpus": whole(wants.accelerator_count * wants.accelerator_fraction),
        "entrypoint_memory": math.ceil(wants.memory_gib * _GIB),
        "entrypoint_resources": custom,
    }
    return {name: value for name, value in parts.items() if value}
