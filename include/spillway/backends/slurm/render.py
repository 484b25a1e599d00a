"""What is sent to Slurm: the batch script, and the same request for `sbatch` and for the REST API. All pure."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spillway.backends.slurm import naming
from spillway.backends.slurm.failures import NAME
from spillway.errors import RejectedError
from spillway.model import Launcher
from spillway.model.codec import encode_json
from spillway.runtime.exit_codes import PREEMPTED

if TYPE_CHECKING:
    from datetime import timedelta

    from spillway.backends.slurm.options import SlurmOptions
    from spillway.model import Submission

MAX_SUBMISSION_BYTES: Final = 100_000
"""Linux allows 128 KiB for one environment variable."""

NO_FOLDER: Final = 73
"""What the script exits with when it cannot write its marks. EX_CANTCREAT of sysexits.h."""

LAST_OLD_VERSION: Final = 38
"""Last version of the REST API that takes a job's fields in their old form."""

# Slurm refuses a job without any; the script sets what the job needs.
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin"}

LINGER_SECONDS: Final = 60
"""How long the other nodes of a gang may go on after the first has ended."""

# A job runs once, whatever restarts it: `began` is made with O_EXCL, and a second start answers as the first ended.
# `trap` keeps bash alive until the runtime has ended, so that its end is written down for when Slurm has forgotten it.
# The runtime is a step of its own, because Slurm sends the notice of a preemption to steps, not to the script.
_SCRIPT: Final = """\
#!/bin/bash
# One attempt of a task of Spillway, which goes on from checkpoints by itself; the key is in the job's comment.
umask 077
mark={mark}
if ! (set -o noclobber; echo "$SLURM_JOB_ID" > "$mark.began") 2>/dev/null; then
  if [ ! -e "$mark.began" ]; then
    echo "spillway: cannot write $mark.began; the option folder must name a folder that all nodes share" >&2
    exit {no_folder}
  fi
  echo "spillway: this attempt has begun before and does not run twice" >&2
  read -r code < "$mark.exit" || code={preempted}
  exit "$code"
fi
told=
trap 'told=1' TERM
{exports}
export SPILLWAY_FIRST_EXIT="$mark.first"
{setup}
cd {working_folder} || exit {no_folder}
{srun} /bin/bash -c {rank} spillway {command}
code=$?
[ ! -s "$mark.first" ] || read -r code < "$mark.first"
if [ -n "$told" ] && [ "$code" -ne 0 ]; then code={preempted}; fi
echo "$code" > "$mark.exit.new" && mv -f "$mark.exit.new" "$mark.exit"
exit "$code"
"""

# Of a gang's exit codes the first that is not 0 tells why it ended: what follows it are its consequences.
# A notice may come before the runtime listens, and kills it then: that is a preemption like any other.
_RANK: Final = """\
told=
trap 'told=1' TERM
"$@"
code=$?
if [ -n "$told" ] && [ "$code" -ne 0 ]; then code={preempted}; fi
[ "$code" -eq 0 ] || (set -o noclobber; echo "$code" > "$SPILLWAY_FIRST_EXIT") 2>/dev/null
exit "$code"\
"""

# A Ray cluster goes on without its workers, so only its head, on the first node, tells how the work ended.
_RANK_OF_RAY: Final = """\
told=
trap 'told=1' TERM
"$@"
code=$?
if [ -n "$told" ] && [ "$code" -ne 0 ]; then code={preempted}; fi
[ "$SLURM_PROCID" != 0 ] || echo "$code" > "$SPILLWAY_FIRST_EXIT"
exit "$code"\
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """One job as it is asked for, in Slurm's words.

    Attributes:
        memory_mib: Of each node.
        time_limit_minutes: None for the partition's.
        notice_seconds: How long before the time limit the steps get SIGTERM.
        output: File that output of script and steps is appended to.
    """

    name: str
    comment: str
    script: str
    output: str
    working_folder: str
    nodes: int
    cpus: int
    memory_mib: int
    notice_seconds: int
    gres: str | None
    partition: str | None
    qos: str | None
    account: str | None
    reservation: str | None
    constraint: str | None
    time_limit_minutes: int | None


def render(submission: Submission, options: SlurmOptions) -> JobRequest:
    """Return the request for the submission; it holds no secret.

    Raises:
        RejectedError: The submission is too large for an environment variable.
    """
    folder = options.shared_folder()
    name = naming.job_name(submission.pool, submission.key)
    notice = submission.grace_period if options.notice is None else options.notice
    return JobRequest(
        name=name,
        comment=naming.comment(submission.pool, submission.key, options.labels),
        script=_script(submission, options, mark=f"{folder}/{name}"),
        output=output_path(folder, name),
        working_folder=options.working_folder or folder,
        nodes=submission.nodes,
        cpus=max(math.ceil(submission.resources.cpus), 1),
        memory_mib=max(math.ceil(submission.resources.memory_gib * 1024), 1),
        notice_seconds=max(math.ceil(notice.total_seconds()), 1),
        gres=options.gres_of(submission.resources),
        partition=options.partition,
        qos=options.qos,
        account=options.account,
        reservation=options.reservation,
        constraint=options.constraint,
        time_limit_minutes=_minutes(options.time_limit),
    )


def output_path(folder: str, name: str) -> str:
    """Return where the job's output is."""
    return f"{folder}/{name}.log"


def sbatch_arguments(request: JobRequest) -> list[str]:
    """Return the command that submits `request.script` from its standard input."""
    flags = {
        "--job-name": request.name,
        "--comment": request.comment,
        "--output": request.output,
        "--open-mode": "append",
        "--chdir": request.working_folder,
        "--nodes": request.nodes,
        "--ntasks": request.nodes,
        "--ntasks-per-node": 1,
        "--cpus-per-task": request.cpus,
        "--mem": f"{request.memory_mib}M",
        "--signal": f"TERM@{request.notice_seconds}",
        "--dependency": "singleton",
        "--gres": request.gres,
        "--partition": request.partition,
        "--qos": request.qos,
        "--account": request.account,
        "--reservation": request.reservation,
        "--constraint": request.constraint,
        "--time": request.time_limit_minutes,
    }
    given = [f"{flag}={value}" for flag, value in flags.items() if value is not None]
    return ["sbatch", "--parsable", "--no-requeue", *given]


def rest_request(request: JobRequest, *, version: int) -> dict[str, object]:
    """Return the body of `POST /slurm/v0.0.{version}/job/submit`.

    Source: the API's own description, `slurmrestd --generate-openapi-spec`, of v0.0.38 and v0.0.42.
    """
    fields = {**_same_in_all_versions(request), **_OF_VERSION[version > LAST_OLD_VERSION](request)}
    job = {field: value for field, value in fields.items() if value is not None}
    if version > LAST_OLD_VERSION:
        return {"job": {**job, "script": request.script}}
    return {"job": job, "script": request.script}


def _same_in_all_versions(request: JobRequest) -> dict[str, object]:
    return {
        "name": request.name,
        "comment": request.comment,
        "standard_output": request.output,
        "current_working_directory": request.working_folder,
        "tasks": request.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": request.cpus,
        "dependency": "singleton",
        "partition": request.partition,
        "qos": request.qos,
        "account": request.account,
        "reservation": request.reservation,
        "constraints": request.constraint,
    }


def _old_fields(request: JobRequest) -> dict[str, object]:
    return {
        "open_mode": "append",
        "no_requeue": True,  # it takes `requeue`, and does not heed it
        "nodes": request.nodes,
        "memory_per_node": request.memory_mib,
        "signal": f"TERM@{request.notice_seconds}",
        "gres": request.gres,
        "time_limit": request.time_limit_minutes,
        "environment": _ENVIRONMENT,
    }


def _new_fields(request: JobRequest) -> dict[str, object]:
    gres = request.gres
    return {
        "open_mode": ["APPEND"],
        "requeue": False,
        "nodes": str(request.nodes),
        "memory_per_node": _number(request.memory_mib),
        "kill_warning_signal": "TERM",
        "kill_warning_delay": _number(request.notice_seconds),
        "tres_per_node": gres and ",".join(f"gres/{one}" for one in gres.split(",")),
        "time_limit": _number(request.time_limit_minutes),
        "environment": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
    }


def _number(value: int | None) -> dict[str, object] | None:
    return None if value is None else {"set": True, "infinite": False, "number": value}


_OF_VERSION: Final = (_old_fields, _new_fields)


def _script(submission: Submission, options: SlurmOptions, *, mark: str) -> str:
    text = encode_json(submission).decode()
    if len(text.encode()) > MAX_SUBMISSION_BYTES:
        raise RejectedError(
            f"the arguments of {submission.key} are too large to send ({len(text.encode())} bytes, "
            f"{MAX_SUBMISSION_BYTES} are allowed); write them to a file and pass where it is",
            backend=NAME,
            key=submission.key,
        )
    variables = {"PYTHONUNBUFFERED": "1", **options.environment, "SPILLWAY_SUBMISSION": text}
    return _SCRIPT.format(
        mark=shlex.quote(mark),
        no_folder=NO_FOLDER,
        preempted=PREEMPTED,
        exports="\n".join(
            f"export {name}={shlex.quote(value)}" for name, value in variables.items()
        ),
        setup="\n".join(options.setup),
        working_folder=shlex.quote(options.working_folder or options.shared_folder()),
        srun=shlex.join(_srun(submission, options)),
        rank=shlex.quote(_rank(submission).format(preempted=PREEMPTED)),
        command=shlex.join([options.python, "-m", "spillway.runtime"]),
    )


def _rank(submission: Submission) -> str:
    return _RANK_OF_RAY if submission.launcher is Launcher.RAY else _RANK


def _srun(submission: Submission, options: SlurmOptions) -> list[str]:
    image = options.container_image
    return [
        "srun",
        "--export=ALL",
        f"--nodes={submission.nodes}",
        f"--ntasks={submission.nodes}",
        f"--cpus-per-task={max(math.ceil(submission.resources.cpus), 1)}",
        "--kill-on-bad-exit=0",
        f"--wait={_linger_seconds(submission)}",
        *([f"--container-image={image}"] if image else []),
        *options.srun,
    ]


def _linger_seconds(submission: Submission) -> int:
    """Return how long the other nodes may go on after the first has ended; 0 for as long as they like."""
    if submission.launcher is Launcher.RAY:
        return 0
    return max(LINGER_SECONDS, math.ceil(submission.grace_period.total_seconds()))


def _minutes(duration: timedelta | None) -> int | None:
    return None if duration is None else max(math.ceil(duration.total_seconds() / 60), 1)
