"""Values to JSON and back, for the ledger, the store and Airflow."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def encode(value: object, kind: Any = None) -> JsonValue:
    """Return `value` as JSON values; `decode(encode(x), type(x)) == x`. Pass `kind` where it is a union."""
    # By way of text: what pydantic calls JSON values in Python still has infinities in it, which JSON has not.
    encoded: JsonValue = from_json(_adapter(kind or type(value)).dump_json(value))
    return encoded


def decode(data: object, kind: type[T]) -> T:
    """Return the value that `data`, made by `encode`, stands for.

    Raises:
        SpecError: It does not stand for a `kind`; the message names the field.
    """
    try:
        decoded: T = _adapter(kind).validate_python(data, by_name=True)
    except ValidationError as error:
        raise SpecError(_explain(kind, error)) from error
    return decoded


def encode_json(value: object) -> bytes:
    """Return `value` as UTF-8 JSON text."""
    return _adapter(type(value)).dump_json(value)


def decode_json(text: bytes | str, kind: type[T]) -> T:
    """Return the value that the JSON `text`, made by `encode_json`, stands for.

    Raises:
        SpecError: It is not JSON, or does not stand for a `kind`.
    """
    try:
        decoded: T = _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise SpecError(_explain(kind, error)) from error
    return decoded


def _explain(kind: Any, error: ValidationError) -> str:
    problems = "; ".join(
        f"{'.'.join(str(place) for place in problem['loc']) or 'the value'}: {problem['msg']}"
        for problem in error.errors(include_url=False)
    )
    return f"this is not a {getattr(kind, '__name__', kind)}: {problems}"
