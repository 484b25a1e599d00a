"""How many jobs of a shape would start now: arithmetic over what is idle on each node. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.slurm.parse import items_of, number, words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.model import Resources

NODE_FORMAT: Final = (
    "NodeList:100|,StateLong:40|,CPUsState:40|,Memory:20|,AllocMem:20|,Gres:400|,GresUsed:400|"
)
"""For `sinfo -N -O`."""

# Source: SchedMD, sinfo(1), section NODE STATE CODES, https://slurm.schedmd.com/sinfo.html#SECTION_NODE-STATE-CODES
_TAKES_JOBS: Final = frozenset({"IDLE", "MIXED", "ALLOCATED"})
_RESERVED: Final = frozenset({"RESERVED"})
_HARMLESS: Final = frozenset(
    {"CLOUD", "COMPLETING", "DYNAMIC_FUTURE", "DYNAMIC_NORM", "POWERED_DOWN", "POWERING_UP"}
)
_SUFFIXES: Final = {"~": "POWERED_DOWN", "#": "POWERING_UP"}
_GRES: Final = re.compile(r"(?P<name>[\w.-]+)(?::(?P<type>[A-Za-z_][\w.-]*))?:(?P<count>\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """What one node has to give now.

    Attributes:
        states: What Slurm says of it, in capitals.
        gres: Idle generic resources, by `name` and by `name:type`.
    """

    name: str
    states: frozenset[str]
    cpus: int
    memory_mib: int
    gres: Mapping[str, int] = field(default_factory=dict[str, int])

    def takes_jobs(self, *, reserved: bool) -> bool:
        """Return whether Slurm would start a job there; `reserved` is for one inside of a reservation."""
        up = _TAKES_JOBS | _RESERVED if reserved else _TAKES_JOBS
        return bool(self.states & up) and self.states <= up | _HARMLESS


def jobs_that_fit(
    nodes: Iterable[NodeRoom], shape: Resources, gres: str | None, *, reserved: bool = False
) -> int:
    """Return how many jobs of one node of `shape`, with `gres` each, would start now."""
    return sum(_on_node(node, shape, gres) for node in nodes if node.takes_jobs(reserved=reserved))


def sinfo_nodes(text: str) -> list[NodeRoom]:
    """Return the nodes that `sinfo -N -O` printed in `NODE_FORMAT`, each once."""
    rows = ([part.strip() for part in line.split("|")] for line in text.splitlines() if line)
    return list({row[0]: _sinfo_node(row) for row in rows}.values())


def rest_nodes(answer: Mapping[str, Any], partition: str | None) -> list[NodeRoom]:
    """Return the partition's nodes of an answer to `GET /slurm/.../nodes`; all of them for None."""
    nodes = items_of(answer.get("nodes"))
    return [
        _rest_node(node)
        for node in nodes
        if partition is None or partition in items_of(node.get("partitions"))
    ]


def gres_counts(text: str) -> dict[str, int]:
    """Return how many there are of each, by name and by `name:type`, in such as `gpu:h100:8(S:0-1)`."""
    counts: dict[str, int] = {}
    for match in _GRES.finditer(re.sub(r"\([^)]*\)", "", text)):
        name, kind, count = match["name"], match["type"], int(match["count"])
        for key in {name, f"{name}:{kind}"} if kind else {name}:
            counts[key] = counts.get(key, 0) + count
    return counts


def _on_node(node: NodeRoom, shape: Resources, gres: str | None) -> int:
    wants = [
        (node.cpus, max(math.ceil(shape.cpus), 1)),
        (node.memory_mib, max(math.ceil(shape.memory_gib * 1024), 1)),
        *((node.gres.get(name, 0), count) for name, count in _wanted(gres)),
    ]
    return max(min(have // want for have, want in wants), 0)


def _wanted(gres: str | None) -> list[tuple[str, int]]:
    """Return what a request such as `gpu:h100:8,nvme` asks for."""
    wanted: list[tuple[str, int]] = []
    for one in (gres or "").split(","):
        head, _, last = one.rpartition(":")
        if one:
            wanted.append((head, int(last)) if last.isdigit() and head else (one, 1))
    return [(name, count) for name, count in wanted if count > 0]


def _sinfo_node(row: list[str]) -> NodeRoom:
    name, state, cpus, memory, taken, gres, used = row[:7]
    return NodeRoom(
        name=name,
        states=_sinfo_states(state),
        cpus=int(cpus.split("/")[1]),
        memory_mib=int(memory) - int(taken),
        gres=_idle(gres, used),
    )


def _sinfo_states(text: str) -> frozenset[str]:
    word = text.rstrip("*~#!%$@^-+")
    return frozenset({word.upper()} | {_SUFFIXES.get(mark, mark) for mark in text[len(word) :]})


def _rest_node(node: Mapping[str, Any]) -> NodeRoom:
    return NodeRoom(
        name=str(node["name"]),
        states=frozenset(words(node.get("state")) + words(node.get("state_flags"))),
        cpus=number(node.get("cpus")) - number(node.get("alloc_cpus")),
        memory_mib=number(node.get("real_memory")) - number(node.get("alloc_memory")),
        gres=_idle(str(node.get("gres") or ""), str(node.get("gres_used") or "")),
    )


def _idle(gres: str, used: str) -> dict[str, int]:
    taken = gres_counts(used)
    return {name: count - taken.get(name, 0) for name, count in gres_counts(gres).items()}
