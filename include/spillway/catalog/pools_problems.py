"""One mistake of a pools file, and pydantic's findings in words that name the remedy."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from spillway.catalog.pools_schema import (
    COMMITMENT_KINDS,
    COMMITMENT_SECTIONS,
    PoolSection,
    PoolsFile,
    PriceListSection,
    ShapeSection,
)
from spillway.catalog.yaml_source import Place
from spillway.model import Market

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pydantic import BaseModel, ValidationError

# Findings whose words depend on nothing but what was given.
_FIXED: Final = {
    "string_pattern_mismatch": "use lower case letters, digits, - and _, beginning with a letter",
    "model_type": "write a mapping there, `key: value`",
    "model_attributes_type": "write a mapping there, `key: value`",
    "list_type": "write a list there, `- name: ...`",
    "too_short": "list at least one pool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake.

    Attributes:
        place: The keys and indices that lead to it.
        line: Its line, from 1, where the place alone does not tell it.
    """

    place: Place
    what: str
    remedy: str
    line: int | None = None


def explained(error: ValidationError, data: Any) -> Iterator[Problem]:
    """Yield what pydantic found wrong with `data`, each with its place and remedy.

    A key that is missing because it is misspelt is one mistake, not two.
    """
    found = [(each, _without_tags(each["loc"], data)) for each in error.errors(include_url=False)]
    misspelt = {_meant(place) for each, place in found if each["type"] == "extra_forbidden"}
    for each, place in found:
        if each["type"] == "missing" and place in misspelt:
            continue
        context = each.get("ctx", {})
        yield _problem(each["type"], place, context, message=each["msg"], given=each["input"])


def _meant(unknown: Place) -> Place:
    close = difflib.get_close_matches(str(unknown[-1]), _keys_at(unknown), n=1)
    return (*unknown[:-1], *close)


def nearest(name: str, names: Collection[str]) -> str | None:
    """Return a question that suggests the one of `names` most like `name`, or None when none is like it."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}?" if close else None


def listed(names: Iterable[str]) -> str:
    """Return the names as one text."""
    return ", ".join(sorted(names)) or "none there are"


def _problem(
    kind: str, place: Place, context: dict[str, Any], *, message: str, given: object
) -> Problem:
    what = f"{_short(given)} will not do"
    match kind:
        case "missing":
            place, key = place[:-1], place[-1]
            what, remedy = f"has no {key}", f"add `{key}:`"
        case "union_tag_not_found":
            what, remedy = "has no kind", f"add `kind:`, one of: {listed(COMMITMENT_KINDS)}"
        case "union_tag_invalid":
            place = (*place, "kind")
            what, remedy = _not_known(context["tag"], COMMITMENT_KINDS)
        case "enum":
            what, remedy = _not_known(given, Market)
        case "extra_forbidden":
            allowed = _keys_at(place)
            what = "is not a key of the pools file"
            remedy = nearest(str(place[-1]), allowed) or f"use one of: {listed(allowed)}"
        case "value_error":
            said, remedy = str(context["error"]).split("; ", 1)
            what = f"{_short(given)} {said}"
        case _:
            remedy = _FIXED.get(kind) or message.replace("Input should", "it should")
    return Problem(place=place, what=what, remedy=remedy)


def _not_known(given: object, choices: Iterable[str]) -> tuple[str, str]:
    names = list(choices)
    return f"{_short(given)} is not known", nearest(str(given), names) or (
        f"use one of: {listed(names)}"
    )


def _short(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _keys_at(place: Place) -> list[str]:
    """Return the keys that the mapping around `place` may have."""
    sections: tuple[type[BaseModel], ...]
    match place[:-1]:
        case ():
            sections = (PoolsFile,)
        case (_, _, "shape"):
            sections = (ShapeSection,)
        case (_, _, "price_list"):
            sections = (PriceListSection,)
        case (_, _, "commitment"):
            sections = COMMITMENT_SECTIONS
        case _:
            sections = (PoolSection,)
    return list(dict.fromkeys(key for section in sections for key in section.model_fields))


def _without_tags(place: Place, data: Any) -> Place:
    """Return `place` without the names of union members that pydantic puts into it."""
    steps: list[str | int] = []
    for position, step in enumerate(place):
        if _has(data, step):
            data = data[step]
        elif step in COMMITMENT_KINDS or position < len(place) - 1:
            continue
        steps.append(step)
    return tuple(steps)


def _has(data: Any, step: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(step, int) and step < len(data)
    return isinstance(data, dict) and step in data
