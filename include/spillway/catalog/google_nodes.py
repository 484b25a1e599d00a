"""Google sells accelerators and machines apart: here they become nodes, priced as the sum of both in one zone."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from spillway.catalog.price_list import COLUMNS, PriceList

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Machine types made for one accelerator and count. Source: Google, "GPU machine types",
# cloud.google.com/compute/docs/gpus.
HOSTS: Final[dict[tuple[str, int], str]] = {
    **{("A100", n): f"a2-highgpu-{n}g" for n in (1, 2, 4, 8)},
    ("A100", 16): "a2-megagpu-16g",
    **{("A100-80GB", n): f"a2-ultragpu-{n}g" for n in (1, 2, 4, 8)},
    **{("H100", n): f"a3-highgpu-{n}g" for n in (1, 2, 4, 8)},
    ("H100-MEGA", 8): "a3-megagpu-8g",
    ("H200", 8): "a3-ultragpu-8g",
    ("B200", 8): "a4-highgpu-8g",
    ("L4", 1): "g2-standard-8",
    ("L4", 2): "g2-standard-24",
    ("L4", 4): "g2-standard-48",
    ("L4", 8): "g2-standard-96",
    # The older ones go into any N1 machine; one of 8 CPUs an accelerator feeds it, up to the largest.
    **{(name, n): f"n1-highmem-{8 * n}" for name in ("T4", "P4", "P100") for n in (1, 2, 4)},
    **{("V100", n): f"n1-highmem-{8 * n}" for n in (1, 2, 4, 8)},
}

# A machine of these families never comes without its accelerators, whose price its own row leaves out.
NEVER_ALONE: Final = ("a2-", "a3-", "a4-", "g2-")

# Chips, and CPUs and GiB of host memory a chip. The number in a slice's name counts cores where a chip has two.
# Source: Google, "TPU architecture" and the pages of the versions, cloud.google.com/tpu/docs/system-architecture-tpu-vm.
_TPU: Final = re.compile(r"^tpu-(v\d\w*?)-(\d+)$")
_CORES_A_CHIP: Final = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "v5litepod": 1, "v6e": 1}
_HOST_A_CHIP: Final = {
    "v2": (24, 83),
    "v3": (24, 83),
    "v4": (60, 100),
    "v5p": (52, 112),
    "v5litepod": (24, 48),
    "v6e": (44, 176),
}


def to_nodes(listed: PriceList) -> tuple[PriceList, NDArray[np.int64], NDArray[np.int64]]:
    """Return the nodes that can be leased, and for each the rows that it is priced from: accelerator or machine, and host.

    A node that needs no host has -1 there. An accelerator without a host in its zone cannot be leased, and a machine that is
    made for an accelerator is no node without it.
    """
    alone = listed.instance == ""
    at = {
        (name, zone): row
        for row, (name, zone) in enumerate(
            zip(listed.instance.tolist(), listed.zone.tolist(), strict=True)
        )
        if name
    }
    rows: list[int] = []
    hosts: list[int] = []
    for row in np.flatnonzero(alone).tolist():
        name, count = str(listed.accelerator[row]), int(listed.accelerator_count[row])
        if _TPU.match(name):
            host = -1
        elif (name, count) in HOSTS:
            host = at.get((HOSTS[name, count], listed.zone[row]), -2)
        else:
            continue
        if host != -2:
            rows.append(row)
            hosts.append(host)
    machines = [
        row
        for row in np.flatnonzero(~alone).tolist()
        if not listed.instance[row].startswith(NEVER_ALONE)
    ]
    first = np.array(machines + rows, dtype=np.int64)
    second = np.array([-1] * len(machines) + hosts, dtype=np.int64)
    return _chips(_sum(listed, first, second)), first, second


def _sum(listed: PriceList, first: NDArray[np.int64], second: NDArray[np.int64]) -> PriceList:
    """Return the rows of `first`, with the machines of `second` where there are."""
    node, held = listed.take(first), second >= 0
    host = listed.take(np.maximum(second, 0))
    return replace(
        node,
        instance=np.where(held, host.instance, node.instance).astype(object),
        cpus=np.where(held, host.cpus, node.cpus),
        memory_gib=np.where(held, host.memory_gib, node.memory_gib),
        on_demand=node.on_demand + np.where(held, host.on_demand, 0),
        spot=node.spot + np.where(held, host.spot, 0),
    )


def _chips(nodes: PriceList) -> PriceList:
    """Return the nodes with TPU slices as chips of a version, on hosts with a share for each chip."""
    columns = {name: getattr(nodes, name).copy() for name in COLUMNS}
    for row, name in enumerate(nodes.accelerator.tolist()):
        found = _TPU.match(name)
        if found is None or found[1] not in _CORES_A_CHIP:
            continue
        version, chips = found[1], int(found[2]) / _CORES_A_CHIP[found[1]]
        cpus, memory_gib = _HOST_A_CHIP[version]
        columns["instance"][row] = name
        columns["accelerator"][row] = f"tpu-{version}"
        columns["accelerator_count"][row] = chips
        columns["cpus"][row], columns["memory_gib"][row] = cpus * chips, memory_gib * chips
    return PriceList(provider=nodes.provider, **columns)
