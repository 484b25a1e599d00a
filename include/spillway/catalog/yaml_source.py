"""YAML that remembers where each value stands, so that a mistake can name its line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlSource:
    """One YAML document as plain data, with its lines.

    Attributes:
        data: What the text says; None for an empty document.
        repeated: Each key that a mapping has twice, with the line of the second; YAML's reader keeps only the last.
    """

    data: Any
    repeated: tuple[tuple[Place, int], ...]
    root: yaml.Node | None

    def line(self, place: Sequence[str | int]) -> int:
        """Return the line, from 1, of the key or item at `place`, or of the nearest one around it that exists."""
        node, line = self.root, 1 if self.root is None else _line(self.root)
        for step in place:
            found = _step(node, step)
            if found is not None:
                line, node = found
        return line


def parse_yaml(text: str) -> YamlSource:
    """Return the one document of `text`.

    Raises:
        yaml.YAMLError: It is not YAML, or more than one document.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    repeated = tuple(_repeated(root, (), set()))
    loader = yaml.SafeLoader("")
    try:
        data = None if root is None else loader.construct_document(root)
    except ValueError as error:  # a scalar that looks like a date and is none
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()
    return YamlSource(data=data, repeated=repeated, root=root)


def _repeated(node: yaml.Node | None, place: Place, seen: set[int]) -> Iterator[tuple[Place, int]]:
    if node is None or id(node) in seen:  # an alias may lead back to where it stands
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in keys:
                yield (*place, key.value), _line(key)
            keys.add(key.value)
            yield from _repeated(value, (*place, key.value), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*place, index), seen)


def _step(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return _line(item), item
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return _line(key), value
    return None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
