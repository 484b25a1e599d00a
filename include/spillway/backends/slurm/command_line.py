"""Slurm through its commands: sbatch, squeue, sacct, scancel, sinfo, scontrol."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from spillway.backends.skew import difference
from spillway.backends.slurm import failures, parse
from spillway.backends.slurm.capacity import NODE_FORMAT, NodeRoom, sinfo_nodes
from spillway.backends.slurm.client import Marks
from spillway.backends.slurm.render import JobRequest, sbatch_arguments
from spillway.errors import BackendError, RejectedError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from spillway.backends.slurm.options import SlurmOptions
    from spillway.backends.slurm.parse import JobRow
    from spillway.backends.slurm.shells import Completed, Shell

ACCOUNTING_DAYS: Final = 60
"""How far back accounting is asked."""

_NO_ACCOUNTING: Final = "accounting storage is disabled"

# `$1` is the folder; what follows are names of jobs. One line for each that began: its name, number and exit code.
_READ_MARKS: Final = """\
cd "$1" 2>/dev/null || exit 0
shift
for name do
  [ -s "$name.began" ] || continue
  read -r id < "$name.began"
  code=-
  [ ! -s "$name.exit" ] || read -r code < "$name.exit"
  echo "$name $id $code"
done
"""
_READ_FILE: Final = '[ ! -r "$1" ] || tail -c "+$2" -- "$1" | head -c "$3"'
_SUBMIT: Final = 'umask 077; mkdir -p -- "$1"; shift; exec "$@"'


class CommandLine:
    """One cluster, through the commands of one of its login nodes."""

    def __init__(self, shell: Shell, options: SlurmOptions) -> None:
        self._shell = shell
        self._options = options

    def submit(self, request: JobRequest) -> int:
        """Hand the job in, and return Slurm's number of it."""
        folder = self._options.shared_folder()
        answer = self._run(
            _script(_SUBMIT, folder, *sbatch_arguments(request)),
            stdin=request.script.encode(),
            otherwise=RejectedError,
        )
        with failures.readable("sbatch"):
            return int(answer.output.decode().strip().splitlines()[-1].partition(";")[0])

    def jobs(self) -> Sequence[JobRow]:
        """Return the user's jobs that the controller remembers."""
        printed = self._text(*_QUEUE, "-O", parse.QUEUE_FORMAT)
        with failures.readable("squeue"):
            return parse.queue_rows(printed)

    def comments(self) -> Mapping[int, str]:
        """Return the comments of those jobs, by Slurm's number."""
        printed = self._text(*_QUEUE, "-o", parse.COMMENT_FORMAT)
        with failures.readable("squeue"):
            return parse.queue_comments(printed)

    def past_jobs(self, names: Sequence[str]) -> Sequence[JobRow]:
        """Return what accounting knows of the user's jobs of these names."""
        command = ["sacct", "--allocations", "--parsable2", "--noheader"]
        command += [f"--starttime=now-{ACCOUNTING_DAYS}days", f"--name={','.join(names)}"]
        answer = self._try([*command, f"--format={parse.ACCOUNT_FORMAT}"])
        if answer.exit_code and _NO_ACCOUNTING in answer.errors + answer.output.decode():
            return []
        self._check(answer, otherwise=TransientError)
        with failures.readable("sacct"):
            return parse.account_rows(answer.output.decode())

    def marks(self, names: Sequence[str]) -> Mapping[str, Marks]:
        """Return what jobs of these names left in the shared folder."""
        printed = self._text(*_script(_READ_MARKS, self._options.shared_folder(), *names))
        rows = (line.split() for line in printed.splitlines())
        with failures.readable("the login node"):
            return {
                name: Marks(job_id=int(job_id), exit_code=None if code == "-" else int(code))
                for name, job_id, code in rows
            }

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Cancel the jobs."""
        self._text("scancel", *map(str, job_ids))

    def nodes(self) -> Sequence[NodeRoom]:
        """Return what the partition's nodes have to give."""
        partition = self._options.partition
        asked = [f"--partition={partition}"] if partition else []
        printed = self._text("sinfo", "-h", "-N", *asked, "-O", NODE_FORMAT)
        with failures.readable("sinfo"):
            return sinfo_nodes(printed)

    def reservation_end(self, name: str) -> datetime:
        """Return when the reservation ends."""
        command = ("scontrol", "--oneliner", "show", "reservation", name)
        printed = self._run(command, otherwise=RejectedError).output.decode(errors="replace")
        with failures.readable("scontrol"):
            return parse.printed_end(printed)

    def clock_ahead(self) -> timedelta:
        """Return how far the login node's clock is ahead of ours."""
        printed = self._text("date", "+%s")
        with failures.readable("date"):
            return difference(datetime.fromtimestamp(int(printed), UTC), datetime.now(UTC))

    def read(self, path: str, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes of the file from `offset` on; none when it is not there."""
        return self._run(_script(_READ_FILE, path, str(offset + 1), str(limit))).output

    def _text(self, *command: str) -> str:
        return self._run(command).output.decode(errors="replace")

    def _run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes = b"",
        otherwise: type[BackendError] = TransientError,
    ) -> Completed:
        answer = self._try(command, stdin)
        self._check(answer, otherwise=otherwise)
        return answer

    def _try(self, command: Sequence[str], stdin: bytes = b"") -> Completed:
        conf = self._options.slurm_conf
        variables = ["LC_ALL=C.UTF-8", "TZ=UTC", *([f"SLURM_CONF={conf}"] if conf else [])]
        return self._shell.run(["env", *variables, *command], stdin)

    def _check(self, answer: Completed, *, otherwise: type[BackendError]) -> None:
        if answer.exit_code:
            said = answer.errors or answer.output.decode(errors="replace")
            raise failures.by_text(said, otherwise=otherwise)


_QUEUE: Final = ("squeue", "--me", "--noheader", "--states=all")


def _script(text: str, *arguments: str) -> list[str]:
    return ["bash", "-c", text, "spillway", *arguments]
