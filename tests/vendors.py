"""What is asked of the packages that clients are made of."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def exceptions_of(module: ModuleType) -> list[type[Exception]]:
    """Return the exceptions that a module has of its own, without its warnings, by name."""
    found = {
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception)
        and not issubclass(value, Warning)
        and value.__module__ == module.__name__  # not what it imports
    }
    return sorted(found, key=lambda kind: kind.__name__)
