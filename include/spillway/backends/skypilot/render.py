"""What is sent to SkyPilot for a submission: a task for a cluster of its own. Pure."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any, Final

import yaml

from spillway.backends.skypilot import naming
from spillway.backends.skypilot.options import ON_KUBERNETES, OWN_MACHINES
from spillway.errors import RejectedError
from spillway.model import Market
from spillway.model.codec import encode_json
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from spillway.backends.skypilot.options import SkyPilotOptions
    from spillway.model import Submission

NAME: Final = "skypilot"

MAX_SUBMISSION_BYTES: Final = 90_000
"""Linux allows 128 KiB for one environment variable, and Base64 makes four bytes of three."""

# A second launch of one name, by two that submit at the same time, is a second job on the same machines: it finds that the
# first has begun, and does nothing. Base64 keeps the submission from whatever reads YAML and shell on its way.
_RUN: Final = """\
# One attempt of a task of Spillway, which goes on from checkpoints by itself; the key is in {key_variable}.
if ! mkdir "$HOME/{name}.$SKYPILOT_NODE_RANK" 2>/dev/null; then
  echo "spillway: this attempt has begun before and does not run twice" >&2
  exit {preempted}
fi
export SPILLWAY_SUBMISSION="$(printf %s "$SPILLWAY_SUBMISSION_BASE64" | base64 -d)"
unset SPILLWAY_SUBMISSION_BASE64
if [ "$SKYPILOT_NUM_NODES" -gt 1 ]; then
  export SPILLWAY_GANG_NODES="$SKYPILOT_NUM_NODES"
  export SPILLWAY_GANG_RANK="$SKYPILOT_NODE_RANK"
  export SPILLWAY_GANG_HEAD="$(printf '%s\\n' "$SKYPILOT_NODE_IPS" | head -n 1)"
fi
exec {python} -m spillway.runtime
"""


def launch(submission: Submission, options: SkyPilotOptions) -> dict[str, Any]:
    """Return the body of `POST /launch`; it holds no secret.

    Raises:
        RejectedError: The submission is too large for an environment variable.
    """
    return {
        "task": yaml.safe_dump(task(submission, options), sort_keys=False),
        "cluster_name": naming.cluster_name(submission.pool, submission.key),
        "retry_until_up": False,  # what to do without room is placement's to decide
        "override_skypilot_config": configuration(options),
    }


def task(submission: Submission, options: SkyPilotOptions) -> dict[str, Any]:
    """Return the task in SkyPilot's words.

    Source: SkyPilot, "SkyPilot YAML", docs.skypilot.co/en/latest/reference/yaml-spec.html.
    """
    name = naming.cluster_name(submission.pool, submission.key)
    wanted: dict[str, Any] = {
        "name": name,
        "num_nodes": submission.nodes,
        "envs": _environment(submission, options),
        "resources": _resources(submission, options, name),
    }
    if options.setup:
        wanted["setup"] = options.setup
    wanted["run"] = _RUN.format(
        name=name,
        python=options.python,
        preempted=PREEMPTED,
        key_variable=naming.KEY_VARIABLE,
    )
    return wanted


def configuration(options: SkyPilotOptions) -> dict[str, Any]:
    """Return what of SkyPilot's configuration is other for this pool."""
    wanted: dict[str, Any] = {}
    if options.reservations:
        wanted[options.cloud] = {"specific_reservations": list(options.reservations)}
    if options.cloud in ON_KUBERNETES and options.start_within is not None:
        # By itself it gives up after ten seconds.
        seconds = math.ceil(options.start_within.total_seconds())
        wanted[options.cloud] = {"provision_timeout": seconds}
    if options.workspace is not None:
        wanted["active_workspace"] = options.workspace
    return wanted


def _resources(submission: Submission, options: SkyPilotOptions, name: str) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "infra": options.infra,
        "use_spot": submission.market is Market.SPOT,
        "labels": {naming.LABEL: name, **options.labels},
    }
    if options.instance_type is not None:
        wanted["instance_type"] = options.instance_type
    if options.cloud in OWN_MACHINES:
        wanted |= _size(submission, options)
    if options.image is not None:
        wanted["image_id"] = options.image
    if options.disk_gib is not None:
        wanted["disk_size"] = options.disk_gib
    if options.idle is not None:
        minutes = math.ceil(options.idle.total_seconds() / 60)
        wanted["autostop"] = {"idle_minutes": minutes, "down": True}
    return wanted


def _size(submission: Submission, options: SkyPilotOptions) -> dict[str, Any]:
    """Return what is cut out of one's own machines; an instance type says it by itself."""
    asked = submission.resources
    wanted: dict[str, Any] = {}
    if options.instance_type is None:
        wanted["cpus"] = max(math.ceil(asked.cpus), 1)
        if asked.memory_gib:
            wanted["memory"] = max(math.ceil(asked.memory_gib), 1)
    if asked.accelerator is not None and asked.accelerator_count:
        kind = options.accelerators.get(asked.accelerator, asked.accelerator)
        wanted["accelerators"] = {kind: asked.accelerator_count}
    return wanted


def _environment(submission: Submission, options: SkyPilotOptions) -> dict[str, str]:
    text = encode_json(submission)
    if len(text) > MAX_SUBMISSION_BYTES:
        raise RejectedError(
            f"the submission has {len(text)} bytes, and {MAX_SUBMISSION_BYTES} are allowed; put large arguments into a file"
            " of the store and pass its name",
            backend=NAME,
            key=submission.key,
        )
    return {
        **options.environment,
        naming.KEY_VARIABLE: submission.key,
        naming.POOL_VARIABLE: submission.pool,
        naming.NODES_VARIABLE: str(submission.nodes),
        "SPILLWAY_SUBMISSION_BASE64": base64.b64encode(text).decode(),
    }
