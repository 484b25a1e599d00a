"""What is sent to Cloud TPU for a submission: a queued resource, and the script that its hosts run. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.google import naming
from spillway.backends.google.environment import variables
from spillway.errors import RejectedError
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from spillway.backends.google.tpu.options import TpuOptions
    from spillway.model import Submission

NAME: Final = "google_tpu"

NAMESPACE: Final = "spillway"
"""Of the guest attributes that tell how a job ended."""

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"

# Every host runs this at each of its starts. A TPU does not go away when the job has ended, so the script leaves the exit
# code in a guest attribute; the backend looks there, and the release deletes the TPU. A host that is started anew says
# that its job is over, and does not run it twice. Where the members of a gang are is in the host's metadata.
_SCRIPT: Final = """\
#!/bin/bash
# One attempt of a task of Spillway, which goes on from checkpoints by itself; the key is in the metadata spillway-key.
umask 077
folder="${{SPILLWAY_FOLDER:-/var/lib/spillway}}"
here="http://${{GCE_METADATA_HOST:-metadata.google.internal}}/computeMetadata/v1/instance"
ask() {{ curl -fsS --retry 5 -H 'Metadata-Flavor: Google' "$here/attributes/$1"; }}
tell() {{ curl -fsS --retry 5 -X PUT -H 'Metadata-Flavor: Google' --data "$2" "$here/guest-attributes/{namespace}/$1"; }}
mkdir -p "$folder"
if ! mkdir "$folder/began"; then
  tell exit {preempted}
  exit
fi
ask spillway-submission > "$folder/submission.json"
ask spillway-environment > "$folder/environment"
if [ {nodes} -gt 1 ]; then
  {{
    echo "SPILLWAY_GANG_NODES={nodes}"
    echo "SPILLWAY_GANG_RANK=$(ask agent-worker-number)"
    echo "SPILLWAY_GANG_HEAD=$(ask worker-network-endpoints | cut -d, -f1 | sed 's/.*://')"
  }} >> "$folder/environment"
fi
docker run --rm --privileged --network=host --env-file="$folder/environment" --volume="$folder:$folder:ro" {options} \\
  {image} {python} -m spillway.runtime "$folder/submission.json"
tell exit "$?"
"""


def queued_resource(
    submission: Submission, options: TpuOptions, parent: str, *, spot: bool
) -> dict[str, Any]:
    """Return the queued resource for the submission; it holds no secret.

    Raises:
        RejectedError: The pool has no slice of so many hosts, or the submission is too large.
    """
    wanted: dict[str, Any] = {
        "tpu": {
            "nodeSpec": [
                {
                    "parent": parent,
                    "nodeId": naming.job_id(submission.pool, submission.key),
                    "node": _node(submission, options),
                }
            ]
        }
    }
    if options.reservation:
        wanted |= {"guaranteed": {}, "reservationName": options.reservation}
        if options.provisioning is not None:
            wanted["provisioningModel"] = options.provisioning
    elif spot:
        wanted["spot"] = {}
    if options.wait_at_most is not None:
        seconds = int(options.wait_at_most.total_seconds())
        wanted["queueingPolicy"] = {"validUntilDuration": f"{seconds}s"}
    return wanted


def startup_script(submission: Submission, options: TpuOptions) -> str:
    """Return what every host runs."""
    return _SCRIPT.format(
        namespace=NAMESPACE,
        preempted=PREEMPTED,
        nodes=submission.nodes,
        options=options.container_options,
        image=shlex.quote(options.image),
        python=shlex.quote(options.python),
    )


def _node(submission: Submission, options: TpuOptions) -> dict[str, Any]:
    said = variables(submission, options, backend=NAME)
    text = said.pop("SPILLWAY_SUBMISSION")
    key = said.pop(naming.KEY_VARIABLE)
    node: dict[str, Any] = {
        "acceleratorType": _slice(submission, options),
        "runtimeVersion": options.runtime_version,
        "labels": {**options.labels, **naming.labels(submission.pool, submission.key)},
        "networkConfig": {
            "network": options.network or "",
            "subnetwork": options.subnetwork or "",
            "enableExternalIps": options.external_ip,
        },
        "metadata": {
            "startup-script": startup_script(submission, options),
            "enable-guest-attributes": "TRUE",
            "spillway-key": key,
            "spillway-submission": text,
            "spillway-environment": "".join(f"{name}={value}\n" for name, value in said.items()),
        },
    }
    if options.reservation:
        node["schedulingConfig"] = {"reserved": True}
    if options.service_account:
        node["serviceAccount"] = {"email": options.service_account, "scope": [_SCOPE]}
    return node


def _slice(submission: Submission, options: TpuOptions) -> str:
    if submission.nodes not in options.slices:
        sizes = ", ".join(str(hosts) for hosts in sorted(options.slices))
        raise RejectedError(
            f"pool {submission.pool!r} has slices of {sizes} hosts, and {submission.nodes} are asked for; name one of that"
            " size in the option slices",
            backend=NAME,
            key=submission.key,
        )
    return options.slices[submission.nodes]
