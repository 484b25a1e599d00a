"""Decide which checkpoints stay. Pure: acting on it is `prune`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spillway.checkpoints.layout import CheckpointName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from spillway.model import Manifest, Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of one checkpoint, and why."""

    name: CheckpointName
    is_kept: bool
    reason: str


def judge(
    checkpoints: Iterable[Manifest],
    rule: Retention,
    *,
    held: Mapping[CheckpointName, str] | None = None,
) -> tuple[Verdict, ...]:
    """Return what becomes of each of `checkpoints`, those that count and are whole; newest first.

    The newest is kept by any rule: it is what the next lease builds on. Where two are equally good by the metric, the
    earlier one is the better.

    Args:
        checkpoints: In any order.
        rule: The task's.
        held: Those that somebody reads now, and who.
    """
    ordered = sorted(checkpoints, key=lambda each: (each.step, each.token), reverse=True)
    reasons: dict[CheckpointName, str] = {}
    for name, reason in (
        *_newest(ordered, rule),
        *_milestones(ordered, rule),
        *_best(ordered, rule),
    ):
        reasons.setdefault(name, reason)
    reasons |= {name: reason for name, reason in (held or {}).items() if name not in reasons}
    return tuple(
        Verdict(
            name=name,
            is_kept=name in reasons,
            reason=reasons.get(name, f"beyond the newest {rule.last}"),
        )
        for name in map(name_of, ordered)
    )


def name_of(manifest: Manifest) -> CheckpointName:
    """Return the name of the checkpoint that `manifest` is of."""
    return CheckpointName(token=manifest.token, step=manifest.step)


def metric_of(manifest: Manifest, metric: str) -> float | None:
    """Return the value of `metric` when the checkpoint was taken; None when it was not reported, or is not a number.

    What was given to `Session.checkpoint` counts where nothing was reported under that name.
    """
    value = manifest.metrics.get(metric, manifest.metadata.get(metric))
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def _newest(ordered: Sequence[Manifest], rule: Retention) -> Iterator[tuple[CheckpointName, str]]:
    for manifest in ordered[: rule.last]:
        yield name_of(manifest), f"one of the newest {rule.last}"


def _milestones(
    ordered: Sequence[Manifest], rule: Retention
) -> Iterator[tuple[CheckpointName, str]]:
    """Yield the first checkpoint of each stretch: later ones cannot take its place, so it stays the same for good."""
    if rule.every_steps is None:
        return
    first = {manifest.step // rule.every_steps: manifest for manifest in ordered}
    for manifest in first.values():
        yield name_of(manifest), f"the first of its {rule.every_steps} steps"


def _best(ordered: Sequence[Manifest], rule: Retention) -> Iterator[tuple[CheckpointName, str]]:
    if rule.metric is None:
        return
    valued = [
        (-value if rule.highest else value, manifest.step, manifest.token, manifest)
        for manifest in ordered
        if (value := metric_of(manifest, rule.metric)) is not None
    ]
    for *_, manifest in sorted(valued, key=lambda each: each[:3])[: rule.best]:
        yield name_of(manifest), f"one of the best {rule.best} by {rule.metric}"
