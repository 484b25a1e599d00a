from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from spillway.checkpoints import checksums
from spillway.checkpoints.checksums import FollowingChecksums, checksum


@given(st.lists(st.binary(max_size=40), min_size=1), st.integers(1, 60))
def test_following_a_copy_gives_the_checksum_of_the_whole(
    pieces: list[bytes], piece_bytes: int
) -> None:
    whole = b"".join(pieces)
    part = memoryview(bytearray(len(whole)))
    before, checksums._PIECE_BYTES = checksums._PIECE_BYTES, piece_bytes
    try:
        with ThreadPoolExecutor(1) as thread:
            following = FollowingChecksums(thread.submit)
            end = 0
            for piece in pieces:
                part[end : end + len(piece)] = piece
                end += len(piece)
                following.filled("part", part, end)
            found = thread.submit(following.results).result()
    finally:
        checksums._PIECE_BYTES = before
    assert found == {"part": checksum(whole)}


def test_a_checksum_names_its_algorithm() -> None:
    assert checksum(b"") == "xxh3_128:99aa06d3014798d86001c324468d497f"
