"""Checksums that are found while parts are copied, or in the background, are those of the whole parts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from spillway.checkpoints import checksums, copying
from spillway.checkpoints.checksums import BackgroundChecksums, checksum, matches
from spillway.checkpoints.copying import Source, copy_all

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 32
PARTS = st.lists(
    st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=3 * BLOCK)), max_size=6), max_size=3
)
"""For each part its sources, each with the number of bytes between it and the one before, which are there already."""


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (checksums, copying):
            patch.setattr(module, "BLOCK_BYTES", BLOCK)
        patch.setattr(copying, "_CHUNK_BYTES", 5)
        patch.setattr(copying, "WORTH_HELP_BYTES", 2 * BLOCK)
        yield


@given(PARTS)
def test_what_is_copied_is_summed_up_on_the_way(
    layout: list[list[tuple[int, bytes]]],
) -> None:
    whole = [b"".join(b"x" * gap + data for gap, data in part) + b"end" for part in layout]
    rooms = [bytearray(b"x" * (len(part) - 3) + b"end") for part in whole]
    sources: list[list[Source]] = []
    for part in layout:
        begin, found = 0, list[Source]()
        for gap, data in part:
            begin += gap
            found.append(Source(begin, np.frombuffer(data, dtype=np.uint8)))
            begin += len(data)
        sources.append(found)
    with ThreadPoolExecutor(1) as helper:
        digests = copy_all(
            [(memoryview(room), found) for room, found in zip(rooms, sources, strict=True)], helper
        )
        parts = {str(number): room for number, room in enumerate(rooms)}
        known = BackgroundChecksums(parts, helper, dict(zip(parts, digests, strict=True)))
        assert [known.get(name) for name in parts] == [checksum(part) for part in whole]
    assert [bytes(room) for room in rooms] == whole
    filled = {
        (part, place // BLOCK)
        for part, found in enumerate(sources)
        for source in found
        for place in range(source.begin, source.begin + len(source.data))
    }
    assert filled == {
        (part, block)
        for part, found in enumerate(digests)
        for block, digest in enumerate(found)
        if digest is not None
    }


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=100), max_size=5))
def test_checksums_in_the_background_are_those_of_the_parts(parts: dict[str, bytes]) -> None:
    with ThreadPoolExecutor(1) as helper:
        known = BackgroundChecksums(parts, helper, {})
        assert {name: known.get(name) for name in parts} == {
            name: checksum(part) for name, part in parts.items()
        }
        assert known.get("no such part") is None


@given(st.binary(max_size=4 * BLOCK), st.integers(0, 4 * BLOCK - 1))
def test_one_byte_that_differs_is_found(data: bytes, place: int) -> None:
    assert matches(data, checksum(data))
    assert not matches(data + b"\0", checksum(data))
    if place < len(data):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        assert not matches(flipped, checksum(data))


def test_a_checksum_names_its_algorithm() -> None:
    assert checksum(b"") == "xxh3_128:99aa06d3014798d86001c324468d497f"
    assert checksum(bytes(BLOCK + 1)).startswith("xxh3_128_of_16_mib_blocks:")


def test_a_long_part_may_have_been_summed_up_in_one_piece() -> None:
    data = bytes(range(3 * BLOCK))
    assert matches(data, f"xxh3_128:{xxhash.xxh3_128(data).hexdigest()}")
    with pytest.raises(KeyError, match="sha1"):
        matches(data, "sha1:00")
