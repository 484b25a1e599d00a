"""The pools file: read, checked as a whole, and every mistake named with its line and remedy.

`python -m spillway.catalog.pools_file` prints the JSON Schema that editors check the file against.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from spillway.catalog.listed_prices import ListedPrice, listed_price
from spillway.catalog.pools_checks import cross_checks
from spillway.catalog.pools_problems import Problem, explained
from spillway.catalog.pools_schema import PoolSection, PoolsFile, json_schema
from spillway.catalog.yaml_source import Place, YamlSource, parse_yaml
from spillway.errors import PoolsFileError, SpecError
from spillway.model import Quota

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from spillway.model import Pool


def load_pools(
    path: Path,
    connections: Collection[str] | None = None,
    *,
    backends: Collection[str] | None = None,
) -> tuple[Pool, ...]:
    """Return the pools of the file at `path`, in its order.

    Args:
        path: The pools file.
        connections: Names of the connections there are; None to leave them unchecked.
        backends: Names of the backends there are; None to leave them unchecked.

    Raises:
        PoolsFileError: The file cannot be read, or has mistakes: all of them.
    """
    source = _parse(path, _read(path))
    problems = [*_repeated(source), *cross_checks(source.data, connections, backends)]
    try:
        file = PoolsFile.model_validate(source.data)
    except ValidationError as error:
        problems += explained(error, source.data)
    else:
        if not problems:
            prices = _prices(path, file, problems)
        if not problems:
            return tuple(
                section.to_pool(price, _quota(file, section))
                for section, price in zip(file.pools, prices, strict=True)
            )
    raise PoolsFileError(str(path), _lines(path, source, problems))


def _prices(path: Path, file: PoolsFile, problems: list[Problem]) -> list[ListedPrice | None]:
    """Return the price of each pool that a list says; adds what cannot be found to `problems`."""
    found: list[ListedPrice | None] = []
    for index, section in enumerate(file.pools):
        where, price = section.price_list, None
        if where is not None:
            try:
                price = listed_price(
                    path.parent / where.file,
                    section.provider or section.backend,
                    instance=where.instance,
                    region=section.region,
                    zone=where.zone,
                    market=section.market,
                )
            except SpecError as error:
                remedy = "correct the file, the instance, the region or the zone"
                place = ("pools", index, "price_list")
                problems.append(Problem(place=place, what=str(error), remedy=remedy))
        found.append(price)
    return found


def _quota(file: PoolsFile, section: PoolSection) -> Quota | None:
    return Quota(name=section.quota, slots=file.quotas[section.quota]) if section.quota else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PoolsFileError(
            str(path), [f"{path}: there is no such file; copy include/pools.yaml there"]
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise PoolsFileError(
            str(path), [f"{path}: cannot be read ({error}); make it a readable UTF-8 file"]
        ) from error


def _parse(path: Path, text: str) -> YamlSource:
    try:
        source = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = 1 if mark is None else mark.line + 1
        what = getattr(error, "problem", None) or str(error)
        raise PoolsFileError(
            str(path), [f"{path}:{line}: not YAML: {what}; check indentation, colons and quotes"]
        ) from error
    if not isinstance(source.data, dict):
        what = "is empty" if source.data is None else "is not a mapping"
        raise PoolsFileError(
            str(path), [f"{path}:{source.line(())}: {what}; begin it with `pools:` and list them"]
        )
    return source


def _repeated(source: YamlSource) -> Iterator[Problem]:
    for place, line in source.repeated:
        yield Problem(place=place, what="is written twice", remedy="keep one of the two", line=line)


def _lines(path: Path, source: YamlSource, problems: Iterable[Problem]) -> list[str]:
    placed = [(problem.line or source.line(problem.place), problem) for problem in problems]
    placed.sort(key=lambda pair: (pair[0], _key(pair[1].place)))
    return [
        f"{path}:{line}: {_key(problem.place)}: {problem.what}; {problem.remedy}"
        for line, problem in placed
    ]


def _key(place: Place) -> str:
    """Return a place as people write it: `pools[2].shape.cpus`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return text.removeprefix(".") or "the file"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
