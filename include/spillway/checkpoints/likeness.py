"""Whether a saved state fits what it is about to be loaded into."""

from __future__ import annotations

from typing import Any

from spillway.errors import WrongCheckpointError


def check_likeness(saved: object, here: object) -> None:
    """Do nothing if `saved` can stand in for `here`: the same keys, and arrays of the same shapes and types.

    What is empty on either side fits anything, as an optimizer that has not stepped yet has no state; lists of different
    lengths fit too, as histories grow.

    Raises:
        WrongCheckpointError: It cannot; the message names the first place where they differ, and the remedy.
    """
    difference = _difference(saved, here, "state")
    if difference:
        raise WrongCheckpointError(
            f"the checkpoint does not fit: {difference}; ask for a fresh start, or give the sizes it was begun with"
        )


def _difference(saved: Any, here: Any, place: str) -> str | None:
    if isinstance(saved, dict) and isinstance(here, dict):
        return _difference_of_dicts(saved, here, place)
    if isinstance(saved, list | tuple) and isinstance(here, list | tuple):
        pairs = enumerate(zip(saved, here, strict=False))
        found = (_difference(one, other, f"{place}[{i}]") for i, (one, other) in pairs)
        return next(filter(None, found), None)
    then, now = _form(saved), _form(here)
    if then == now:
        return None
    return f"{place} is {then} in it and {now} here"


def _difference_of_dicts(saved: dict[Any, Any], here: dict[Any, Any], place: str) -> str | None:
    if not saved or not here:
        return None
    for key in here:
        if key not in saved:
            return f"it has no {place}[{key!r}]"
    for key in saved:
        if key not in here:
            return f"it has {place}[{key!r}], for which there is nothing here"
    found = (_difference(saved[key], here[key], f"{place}[{key!r}]") for key in here)
    return next(filter(None, found), None)


def _form(value: Any) -> str:
    """Return what is compared of a value that holds no others: shape and type of an array, and nothing of anything else."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return "no array"
