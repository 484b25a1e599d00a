"""The words of AWS's interfaces: requests checked against botocore's own service descriptions, and how errors are written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import botocore.session
from botocore.validate import ParamValidator

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, kw_only=True)
class AwsError(Exception):
    """An error as AWS answers it."""

    code: str
    message: str
    status: int = 400
    headers: Mapping[str, str] = field(default_factory=dict)


@cache
def service(name: str) -> Any:
    """Return botocore's description of a service."""
    return botocore.session.get_session().get_service_model(name)


def check(service_name: str, operation: str, parameters: Mapping[str, Any], *, code: str) -> None:
    """Raise the error of a request that is not as the service describes it: types, members, lengths, patterns, sets."""
    shape = service(service_name).operation_model(operation).input_shape
    if shape is None:
        return
    report = ParamValidator().validate(parameters, shape)
    problems = [report.generate_report()] if report.has_errors() else []
    problems += list(_broken(shape, parameters, ""))
    if problems:
        raise AwsError(
            code=code, message=f"{len(problems)} validation error detected: {'; '.join(problems)}"
        )


def error_body(protocol: str, error: AwsError) -> tuple[str, bytes]:
    """Return the content type and body that clients of the protocol find the error in."""
    if protocol in ("ec2", "query"):
        text = (
            f"<Response><Errors><Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error></Errors>"
            "<RequestID>0</RequestID></Response>"
        )
        return "text/xml", text.encode()
    body = {"__type": error.code, "message": error.message}
    return "application/x-amz-json-1.1", json.dumps(body).encode()


def _broken(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Yield what botocore's client leaves to the service to check."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for name, one in value.items():
            if name in shape.members:
                yield from _broken(shape.members[name], one, f"{path}.{name}")
    elif shape.type_name == "list" and isinstance(value, list):
        yield from _too_long(shape, len(value), path)
        for one in value:
            yield from _broken(shape.member, one, f"{path}[]")
    elif shape.type_name == "map" and isinstance(value, dict):
        yield from _too_long(shape, len(value), path)
        for name, one in value.items():
            yield from _broken(shape.key, name, f"{path} key")
            yield from _broken(shape.value, one, f"{path}.{name}")
    elif shape.type_name == "string" and isinstance(value, str):
        yield from _bad_text(shape, value, path)


def _too_long(shape: Any, length: int, path: str) -> Iterator[str]:
    if length > shape.metadata.get("max", length):
        yield f"Value at '{path}' must have length less than or equal to {shape.metadata['max']}"


def _bad_text(shape: Any, text: str, path: str) -> Iterator[str]:
    yield from _too_long(shape, len(text), path)
    pattern = str(shape.metadata.get("pattern", "")).replace(r"\p{L}\p{Z}\p{N}_", r"\w\s")
    if pattern and not re.fullmatch(pattern, text):
        yield f"Value '{text[:80]}' at '{path}' failed to satisfy constraint: {pattern}"
    if shape.enum and text not in shape.enum:
        yield f"Value '{text}' at '{path}' failed to satisfy enum value set: [{', '.join(shape.enum[:5])}, ...]"
