"""Claims and manifests as JSON text that ends with its own checksum, so that a value that was changed is not believed."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic_core import from_json

from spillway.checkpoints.checksums import checksum, matches
from spillway.errors import SpecError
from spillway.model.codec import decode_json, encode_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_SEAL: Final = re.compile(rb',"checksum":"(\w+:[0-9a-f]+)"\}\Z')


def seal(value: object) -> bytes:
    """Return `value` as UTF-8 JSON text whose last field is the checksum of the text without it."""
    text = encode_json(value)
    return b'%b,"checksum":"%b"}' % (text[:-1], checksum(text).encode())


def unseal(data: bytes, kind: type[T]) -> T:
    """Return the value that `data` stands for; what was written before there were seals may be without one.

    Raises:
        SpecError: It is not what was written.
    """
    found = _SEAL.search(data)
    if found is None:
        value = decode_json(data, kind)
        _check_that_none_was_there(data, kind)
        return value
    text = data[: found.start()] + b"}"
    try:
        is_whole = matches(text, found[1].decode())
    except KeyError as unknown:
        raise SpecError(
            f"its checksum is by {unknown}, which this version does not know"
        ) from unknown
    if not is_whole:
        raise SpecError("its checksum differs")
    return decode_json(text, kind)


def _check_that_none_was_there(data: bytes, kind: type[Any]) -> None:
    unknown = from_json(data).keys() - {field.name for field in fields(kind)}
    if unknown:
        raise SpecError(f"it has {', '.join(sorted(unknown))} and no checksum at its end")
