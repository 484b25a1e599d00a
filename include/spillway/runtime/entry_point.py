"""Find the function that an entry point names, and check its arguments before it is called."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

from spillway.errors import SpecError
from spillway.model.task import ENTRY_POINT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from spillway.runtime.session import Session

    Function = Callable[..., object]


def load(entry_point: str, arguments: Mapping[str, JsonValue]) -> Function:
    """Return the function named `package.module:function`, which takes a session and `arguments`.

    Raises:
        SpecError: The name, the module, the function or the arguments are wrong; the message says which and the remedy.
    """
    if not ENTRY_POINT.fullmatch(entry_point):
        raise SpecError(f"{entry_point!r} is no entry point: write it as package.module:function")
    module_name, _, name = entry_point.partition(":")
    function: object = getattr(_import(entry_point, module_name), name, None)
    if function is None:
        raise SpecError(
            f"entry point {entry_point!r}: module {module_name!r} has no {name!r}; correct the name after the colon"
        )
    if not callable(function):
        raise SpecError(
            f"entry point {entry_point!r}: {name!r} of module {module_name!r} is a {type(function).__name__} and cannot"
            " be called; name a function"
        )
    _check_arguments(entry_point, function, arguments)
    return function


def call(function: Function, session: Session, arguments: Mapping[str, JsonValue]) -> object:
    """Return what the entry point returns."""
    return function(session, **arguments)


def _import(entry_point: str, module_name: str) -> object:
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise SpecError(
            f"entry point {entry_point!r}: module {module_name!r} does not import ({type(error).__name__}: {error}); "
            "install it where the job runs, or add its folder to the pool's option python_path"
        ) from error
    except SystemExit as error:
        raise SpecError(
            f"entry point {entry_point!r}: module {module_name!r} exits with {error.code!r} when it is imported; put what it"
            ' runs as a program under `if __name__ == "__main__":`'
        ) from error


def _check_arguments(
    entry_point: str, function: Function, arguments: Mapping[str, JsonValue]
) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return
    try:
        signature.bind(None, **arguments)
    except TypeError as error:
        raise SpecError(
            f"entry point {entry_point!r}: its arguments do not fit ({error}); it is called with a session and"
            f" {', '.join(arguments) or 'nothing else'}, and takes {signature}"
        ) from error
