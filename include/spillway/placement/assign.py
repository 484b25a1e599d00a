"""Which task gets which slot, when there are not enough of the best for all: a minimum-cost assignment.

First as many tasks as possible are placed, then as little time as possible is lost past deadlines, then as little money as
possible is spent. Each of these is a linear assignment, which scipy solves exactly. Where some lateness cannot be avoided the last one is a
small integer program, solved by HiGHS; where gangs of different sizes share the slots, each of them is.

Sources: Crouse, "On implementing 2D rectangular assignment algorithms", IEEE Transactions on Aerospace and Electronic Systems
52 (4), 2016; Huangfu and Hall, "Parallelizing the dual revised simplex method", Mathematical Programming Computation 10, 2018.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.optimize  # pyright: ignore[reportMissingTypeStubs] - it ships without types
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NOBODY: Final = -1
_SLACK_SECONDS: Final = 1e-3
_solvers: Any = scipy.optimize


def assign(cost: Floats, late: Floats, room: Ints, nodes: Ints | None = None) -> list[int]:
    """Return for each task the column it is assigned to, or `NOBODY`.

    Args:
        cost: Dollars of each task (row) on each offer (column); infinite where it cannot go.
        late: Seconds past its deadline; 0 where it has none.
        room: How many slots each offer has.
        nodes: How many slots of one offer each task takes; one each unless given.
    """
    tasks, offers = cost.shape
    if not tasks or not offers:
        return [NOBODY] * tasks
    sizes = np.ones(tasks, dtype=np.int64) if nodes is None else nodes
    possible = np.isfinite(cost)
    cost, late = np.where(possible, cost, np.inf), np.where(possible, late, np.inf)
    alone = _each_alone(cost, late)
    if _fits(alone, room, sizes):
        return alone
    if (sizes != sizes[0]).any():
        return _packed(cost, late, room, sizes)
    room = room // sizes[0]
    columns = _one_a_slot(room, most=tasks)
    cost, late = cost[:, columns], late[:, columns]
    if (late[np.isfinite(late)] > 0).any():
        taken = _cheapest(late)
        placed = taken < len(columns)
        lost = float(late[np.flatnonzero(placed), taken[placed]].sum())
        if lost > 0:
            return _named(_within(cost, late, int(placed.sum()), lost), columns)
        cost = np.where(late > 0, np.inf, cost)
    return _named(_cheapest(cost), columns)


def _one_a_slot(room: Ints, *, most: int) -> Ints:
    """Return the offer of each slot; an offer has no more slots than there are tasks for."""
    slots = [offer for offer, free in enumerate(room.tolist()) for _ in range(min(free, most))]
    return np.array(slots, dtype=np.int64)


def _each_alone(cost: Floats, late: Floats) -> list[int]:
    """Return what each task would take if it were the only one."""
    soonest = late == late.min(axis=1, keepdims=True)
    best = np.where(soonest, cost, np.inf).argmin(axis=1)
    some = np.isfinite(cost).any(axis=1)
    return [int(column) for column in np.where(some, best, NOBODY)]


def _fits(taken: list[int], room: Ints, sizes: Ints) -> bool:
    return bool((slots_used(taken, sizes, offers=len(room)) <= room).all())


def slots_used(taken: list[int], sizes: Ints, *, offers: int) -> Ints:
    """Return how many slots of each offer an assignment takes."""
    used = np.zeros(offers, dtype=np.int64)
    for column, size in zip(taken, sizes, strict=True):
        if column != NOBODY:
            used[column] += size
    return used


def _packed(cost: Floats, late: Floats, room: Ints, sizes: Ints) -> list[int]:
    """Return the assignment of tasks of different sizes; each aim in turn is held while the next is reached for."""
    task, offer = np.nonzero(np.isfinite(cost) & (sizes[:, None] <= room[None, :]))
    edges = np.arange(len(task))
    if not len(edges):
        return [NOBODY] * len(sizes)
    once, slots = np.zeros((len(sizes), len(edges))), np.zeros((len(room), len(edges)))
    once[task, edges] = 1
    slots[offer, edges] = sizes[task]
    limits = [
        _solvers.LinearConstraint(once, -np.inf, 1),
        _solvers.LinearConstraint(slots, -np.inf, room),
    ]
    placed = -np.ones(len(edges))
    chosen = _least(placed, limits)
    limits.append(_solvers.LinearConstraint(placed[None, :], -np.inf, placed @ chosen + 0.5))
    lateness = late[task, offer]
    if lateness.any():
        chosen = _least(lateness, limits)
        most = lateness @ chosen + _SLACK_SECONDS
        limits.append(_solvers.LinearConstraint(lateness[None, :], -np.inf, most))
    chosen = _least(cost[task, offer], limits)
    taken = [NOBODY] * len(sizes)
    for edge in np.flatnonzero(chosen):
        taken[int(task[edge])] = int(offer[edge])
    return taken


def _least(objective: Floats, limits: list[Any]) -> Floats:
    """Return the choice of edges, each 0 or 1, that makes `objective` least within `limits`."""
    solved = _solvers.milp(
        objective,
        integrality=np.ones(len(objective)),
        bounds=_solvers.Bounds(0, 1),
        constraints=limits,
        options={"mip_rel_gap": 0},
    )
    assert solved.x is not None, solved.message  # what the limits were found with is one solution
    return np.asarray(solved.x, dtype=np.float64).round()


def _cheapest(cost: Floats) -> Ints:
    """Return each row's column in the assignment of the most rows at the least cost; past the last column for none."""
    rows, columns = cost.shape
    highest = np.where(np.isfinite(cost), cost, 0.0).max(axis=1, initial=0.0).sum()
    unplaced = np.full((rows, rows), highest + 1.0)
    taken: Ints = _solvers.linear_sum_assignment(np.hstack([cost, unplaced]))[1]
    return np.asarray(np.minimum(taken, columns), dtype=np.int64)


def _within(cost: Floats, late: Floats, placed: int, lost: float) -> Ints:
    """Return the cheapest assignment of `placed` rows that loses no more than `lost` seconds."""
    rows, columns = cost.shape
    task, slot = np.nonzero(np.isfinite(cost))
    edges = np.arange(len(task))
    per_task, per_slot = np.zeros((rows, len(edges))), np.zeros((columns, len(edges)))
    per_task[task, edges] = 1
    per_slot[slot, edges] = 1
    solved = _least(
        cost[task, slot],
        [
            _solvers.LinearConstraint(per_task, -np.inf, 1),
            _solvers.LinearConstraint(per_slot, -np.inf, 1),
            _solvers.LinearConstraint(np.ones((1, len(edges))), placed, placed),
            _solvers.LinearConstraint(late[task, slot][None, :], -np.inf, lost + _SLACK_SECONDS),
        ],
    )
    taken = np.full(rows, columns, dtype=np.int64)
    chosen: NDArray[np.bool_] = solved > 0.5
    taken[task[chosen]] = slot[chosen]
    return taken


def _named(taken: Ints, columns: Ints) -> list[int]:
    return [int(columns[slot]) if slot < len(columns) else NOBODY for slot in taken]
