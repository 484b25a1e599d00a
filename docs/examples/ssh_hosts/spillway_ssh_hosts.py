"""A host that is reached over SSH as a pool of Spillway: no agent on it, and no queue.

Each call is one shell script. Every job has a folder there, and a lock that its processes hold: as long as it is held, the
job is alive, whoever else got its process id since. The host needs Linux and a Python with `spillway` in it.
"""

from __future__ import annotations

import codecs
import hashlib
import shlex
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

import paramiko

from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.errors import AccessError, CapacityError, RejectedError, SpecError, TransientError
from spillway.model import JobEvent, Observation, Pool, Submission
from spillway.model.codec import encode_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NAME = "ssh_host"
TIMEOUT_SECONDS = 20.0
MAX_LOG_BYTES = 1 << 20
FULL = 75
DEFAULTS = MappingProxyType({"python": "python3", "python_path": ""})
REFUSED = (paramiko.AuthenticationException, paramiko.BadHostKeyException)

# `alive` is locked before the job is started, and the job inherits the lock: there is no moment in between. The trap lets
# the shell outlive a SIGTERM that the whole group gets, and so write down how the job ended.
SUBMIT = """
if [ ! -d "$name" ]; then
  taken=0; for job in */; do is_alive "$job" && taken=$((taken + 1)); done
  [ "$taken" -lt "$slots" ] || exit 75
  mkdir new && printf %s "$key" > new/key && printf %s "$submission" > new/submission.json
  mv new "$name"
  exec 8> "$name/alive" && flock 8
  setsid sh -c 'trap : TERM; echo $$ > "$1/pid"
    PYTHONPATH=$3 "$2" -m spillway.runtime "$1/submission.json" < /dev/null > "$1/log" 2>&1
    echo $? > "$1/exit.new"; mv "$1/exit.new" "$1/exit"' - \
    "$name" "$python" "$python_path" < /dev/null > /dev/null 2>&1 9>&- &
fi"""
OBSERVE = """
for name in $names; do
  alive=no; is_alive "$name" && alive=yes
  released=no; [ -e "$name/released" ] && released=yes
  [ ! -d "$name" ] || echo "$name $alive $released $(cat "$name/exit" 2> /dev/null)"
done"""
RELEASE = """
[ -e "$name/exit" ] || ! is_alive "$name" || touch "$name/released"
told=no
for turn in $(seq 60); do
  is_alive "$name" || exit 0
  if [ "$turn" -gt 20 ]; then kill -KILL "-$(cat "$name/pid")"
  elif [ "$told" = no ]; then kill -TERM "-$(cat "$name/pid")" && told=yes; fi 2> /dev/null || true
  sleep 0.1
done
exit 1"""
LIST = 'for job in */; do ! is_alive "$job" || { cat "$job/key"; echo; }; done'
LOG = '[ ! -e "$name/log" ] || tail -c "+$first" "$name/log" | head -c "$most"'
BEGIN = """set -eu; mkdir -p "$folder"; cd "$folder"; rm -rf new; exec 9> .lock; flock 9
is_alive() { [ -e "$1/alive" ] && ! flock -n "$1/alive" true; }
"""


class SshHostBackend:
    """Jobs as processes of one host."""

    def __init__(self, pool: Pool, *, home: Path, connection: Connection | None = None) -> None:  # noqa: ARG002
        unknown = sorted(set(pool.options) - {"folder", *DEFAULTS})
        if unknown:
            raise SpecError(f"pool {pool.name!r} has the unknown option {unknown[0]!r}")
        if connection is None or connection.host is None:
            raise SpecError(f"pool {pool.name!r} needs `connection:`, with the host, login and key")
        self._connection = connection
        self._slots = pool.slots
        given = {"folder": f".spillway/{pool.name}", **DEFAULTS, **pool.options}
        self._settings = {name: str(value) for name, value in given.items()}
        self._settings["slots"] = str(pool.slots)
        self._client: paramiko.SSHClient | None = None

    def submit(self, submission: Submission) -> Job:
        """Start the job, unless its folder is there already."""
        key = submission.key
        if submission.nodes > 1:
            raise RejectedError("one host runs no gangs", backend=NAME, key=key)
        text = encode_json(submission).decode()
        self._run(SUBMIT, name=job_name(key), key=key, submission=text)
        return Job(key=key)

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what is known of each job, by key."""
        if not jobs:
            return {}
        output = self._run(OBSERVE, names=" ".join(job_name(job.key) for job in jobs)).decode()
        rows = {row[0]: row[1:] for row in map(str.split, output.splitlines())}
        return {job.key: parse(rows.get(job_name(job.key)), datetime.now(UTC)) for job in jobs}

    def release(self, job: Job) -> None:
        """Stop every process of the job: kindly first, and for good after two seconds."""
        self._run(RELEASE, name=job_name(job.key), key=job.key)

    def free_slots(self) -> int:
        """Return how many more jobs would start now."""
        return max(self._slots - len(self.list_jobs()), 0)

    def list_jobs(self) -> Sequence[Job]:
        """Return every job that is alive."""
        return [Job(key=key) for key in self._run(LIST).decode().splitlines()]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on, whole characters only."""
        first, most = str(offset + 1), str(MAX_LOG_BYTES)
        data = self._run(LOG, name=job_name(job.key), first=first, most=most)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(data)
        return LogChunk(text=text, next_offset=offset + len(data) - len(decoder.getstate()[0]))

    def _run(self, script: str, **values: str) -> bytes:
        key = values.get("key")
        try:
            status, output, errors = self._call(render(script, {**self._settings, **values}))
        except REFUSED as error:
            remedy = "correct login, key_file or known_hosts of the pool's connection"
            raise AccessError(f"{error}; {remedy}", backend=NAME, key=key) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._client = None  # the next call connects anew
            silent = f"{self._connection.host} did not answer: {error}; jobs may run on"
            raise TransientError(silent, backend=NAME, key=key) from error
        if status == FULL:
            raise CapacityError(f"all {self._slots} slots are taken", backend=NAME, key=key)
        if status:
            raise TransientError(f"the host answered {status}: {errors}", backend=NAME, key=key)
        return output

    def _call(self, script: str) -> tuple[int, bytes, str]:
        self._client = self._client or self._connect()
        stdin, stdout, stderr = self._client.exec_command("sh -s", timeout=TIMEOUT_SECONDS)
        stdin.write(script)
        stdin.channel.shutdown_write()
        output, errors = stdout.read(), stderr.read()
        return stdout.channel.recv_exit_status(), output, errors.decode(errors="replace")

    def _connect(self) -> paramiko.SSHClient:
        told, client = self._connection, paramiko.SSHClient()
        known_hosts, key_file = told.extra.get("known_hosts"), told.extra.get("key_file")
        client.load_system_host_keys(str(known_hosts) if known_hosts else None)
        client.set_missing_host_key_policy(_RefuseUnknown())
        client.connect(
            str(told.host),
            port=told.port or 22,
            username=told.login,
            key_filename=str(key_file) if key_file else None,
            timeout=TIMEOUT_SECONDS,
            allow_agent=False,
            look_for_keys=False,
        )
        return client


class _RefuseUnknown(paramiko.MissingHostKeyPolicy):
    def missing_host_key(self, client: object, hostname: str, key: object) -> None:  # noqa: ARG002
        raise paramiko.AuthenticationException(f"{hostname} is not in known_hosts")


def job_name(key: str) -> str:
    """Return the name of the job's folder; keys have characters that folders do not."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def render(script: str, values: Mapping[str, str]) -> str:
    """Return the whole script; what it is told is quoted, and stays data."""
    told = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return told + BEGIN + script


def parse(row: Sequence[str] | None, now: datetime) -> Observation:
    """Return what a line of `OBSERVE` means: whether the job is alive and was released, and its exit code if it has one.

    75 is how the runtime says that it was told to stop and has saved its state.
    """
    if row is None:
        return Observation(event=JobEvent.VANISHED, seen_at=now, detail="not known to the host")
    alive, released, *exit_code = row
    if released == "yes" and alive == "no":
        return Observation(event=JobEvent.CANCELLED, seen_at=now, detail="released")
    if exit_code:
        code = int(exit_code[0])
        ends = {0: JobEvent.SUCCEEDED, 75: JobEvent.PREEMPTED}
        event = ends.get(code, JobEvent.FAILED)
        return Observation(event=event, seen_at=now, exit_code=code, detail=f"exit code {code}")
    if alive == "yes":
        return Observation(event=JobEvent.STARTED, seen_at=now)
    return Observation(event=JobEvent.VANISHED, seen_at=now, detail="its processes are gone")
