"""What Google says itself of its REST APIs' messages, in the discovery documents that its client library brings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from googleapiclient.discovery_cache import get_static_doc  # type: ignore[import-untyped]

from spillway.testing.google_machines import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_message(api: str, version: str, schema: str, message: Mapping[str, Any]) -> None:
    """Refuse a message with fields that the API does not have, as Google does.

    Raises:
        Refusal: It has one; or its value is none of those that there are.
    """
    for problem in _problems(_schemas(api, version), {"$ref": schema}, message, place=schema):
        raise Refusal("INVALID_ARGUMENT", f"Invalid JSON payload received. {problem}")


@cache
def _schemas(api: str, version: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", json.loads(get_static_doc(api, version))["schemas"])


def _problems(
    schemas: Mapping[str, Any], kind: Mapping[str, Any], value: Any, *, place: str
) -> Iterable[str]:
    kind = schemas[kind["$ref"]] if "$ref" in kind else kind
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _problems(schemas, kind["items"], one, place=f"{place}[{number}]")
    elif isinstance(value, Mapping):
        for name, one in cast("Mapping[str, Any]", value).items():
            field = kind.get("properties", {}).get(name, kind.get("additionalProperties"))
            if field is None:
                yield f"Unknown name {name!r} at {place}: Cannot find field."
            else:
                yield from _problems(schemas, field, one, place=f"{place}.{name}")
    elif value not in kind.get("enum", (value,)):
        yield f"Invalid value at {place}: {value!r}"
