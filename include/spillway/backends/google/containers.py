"""What the exit codes of containers on Google's machines tell beside their number."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

OUT_OF_MEMORY: Final = 137
"""Of a container that got SIGKILL, which is what the kernel does when memory runs out."""

_NO_PROGRAM: Final = (
    "most likely there is no such program in the image; correct the option python, or the image"
)

# Source: Docker, "docker container run", "Exit status", docs.docker.com/engine/containers/run/#exit-status.
REMEDIES: Final[Mapping[int, str]] = MappingProxyType(
    {
        125: "Docker did not start the container; correct the option image or container_options, or let the option"
        " service_account name an account that may pull the image",
        126: _NO_PROGRAM,
        127: _NO_PROGRAM,
        OUT_OF_MEMORY: "SIGKILL: most likely it ran out of memory; raise memory_gib of its resources",
    }
)


def said(code: int) -> str:
    """Return an exit code in words, with what to do about it where that is known."""
    remedy = REMEDIES.get(code)
    return f"exit code {code}, {remedy}" if remedy else f"exit code {code}"
