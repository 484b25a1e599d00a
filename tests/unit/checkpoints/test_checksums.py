"""Checksums computed in the background are those of the whole parts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from spillway.checkpoints.checksums import BackgroundChecksums, checksum


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=100), max_size=5))
def test_checksums_in_the_background_are_those_of_the_parts(parts: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(1) as helper:
        known = BackgroundChecksums(parts, helper)
        assert {name: known.get(name) for name in parts} == {
            name: checksum(part) for name, part in parts.items()
        }
        assert known.get("no such part") is None


def test_a_checksum_names_its_algorithm() -> None:
    assert checksum(b"") == "xxh3_128:99aa06d3014798d86001c324468d497f"
