"""Machines of a made-up Google Cloud: each is a process of this machine, so that jobs really run."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from spillway.testing.process_groups import ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass
class Refusal(Exception):  # noqa: N818  # what Google answers; not an error of ours
    """An error as Google's API tells it.

    Attributes:
        status: Name of a `google.rpc.Code`.
        reason: Of the `google.rpc.ErrorInfo` that comes with it; none comes without.
        retry_seconds: Of the `google.rpc.RetryInfo` that comes with it; none comes without.
    """

    status: str
    message: str
    reason: str = ""
    domain: str = "googleapis.com"
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    retry_seconds: int | None = None


def permission_denied(permission: str, resource: str = "projects/our-project") -> Refusal:
    """Return what an account without the permission is told."""
    return Refusal(
        status="PERMISSION_DENIED",
        message=f"Permission '{permission}' denied on resource '{resource}' (or it may not exist).",
        reason="IAM_PERMISSION_DENIED",
        domain="iam.googleapis.com",
        metadata={"permission": permission, "resource": resource},
    )


class Machine:
    """Runs one command, and keeps its output in a file."""

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], *, output: Path
    ) -> None:
        self.output = output
        self.forced_exit_code: int | None = None
        with output.open("ab") as file:
            self._group = ProcessGroup(
                command,
                env={"PATH": os.environ["PATH"], **variables},
                cwd=output.parent,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def exit_code(self) -> int | None:
        """The command's, 128 and the number for a signal, as containers have it; None while it runs."""
        code = self._group.exit_code()
        return code if code is None or self.forced_exit_code is None else self.forced_exit_code

    def kill(self, exit_code: int | None = None) -> None:
        """Take the machine away, at once; `exit_code` is what is told of it then."""
        self.forced_exit_code = exit_code
        self._group.signal(signal.SIGKILL)
        self._group.wait()

    def lines(self) -> list[str]:
        """Return the whole lines of its output."""
        text = self.output.read_bytes().decode(errors="replace")
        complete = text if self.exit_code is not None else text[: text.rfind("\n") + 1]
        return complete.splitlines()


def page_of(items: Sequence[Any], *, size: int, most: int, token: str) -> tuple[Sequence[Any], str]:
    """Return one page of the items, and the token of the next; `most` is the largest page that is given."""
    start = int(token or 0)
    end = start + min(size or most, most)
    return items[start:end], str(end) if end < len(items) else ""


def next_instant(used: list[datetime]) -> datetime:
    """Return an instant later than those used, and add it to them: no two things happen at once here."""
    now = datetime.now(UTC)
    if used and now <= used[-1]:
        now = used[-1] + timedelta(microseconds=1)
    used[:] = [now]
    return now
