"""A node of Ray that does not start, started again where that may help; by a command that says what Ray says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from spillway.errors import GangError
from spillway.runtime.gang.ray_node import TIMED_OUT, start, stop

if TYPE_CHECKING:
    from pathlib import Path

SLOW_ONCE = """
echo start >> {marks}
if [ "$(wc -l < {marks})" -le {slow} ]; then
    echo "Exception: The current node {words}."
    exit 1
fi
echo Ray runtime started.
exec sleep 1000
"""


def command(folder: Path, *, slow: int, words: str = TIMED_OUT) -> list[str]:
    script = SLOW_ONCE.format(marks=folder / "marks", slow=slow, words=words)
    return ["/bin/sh", "-c", script]


def starts(folder: Path) -> int:
    return len((folder / "marks").read_text().splitlines())


def test_a_node_that_was_too_slow_for_ray_is_started_again(tmp_path: Path) -> None:
    node = start(command(tmp_path, slow=2), tmp_path / "ray.log")
    assert node.poll() is None
    stop(node)
    assert starts(tmp_path) == 3


@pytest.mark.parametrize(("words", "times"), [(TIMED_OUT, 3), ("has no such option", 1)])
def test_a_node_that_does_not_start_is_told_with_its_words(
    tmp_path: Path, words: str, times: int
) -> None:
    with pytest.raises(GangError, match=words):
        start(command(tmp_path, slow=9, words=words), tmp_path / "ray.log")
    assert starts(tmp_path) == times
