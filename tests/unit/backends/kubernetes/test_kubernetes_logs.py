from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from spillway.backends.kubernetes.logs import Cursor, lines_after

BEGIN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def stamped(lines: list[str]) -> bytes:
    """Return lines as a node writes them down: one each 37.5 ms, times without zeros at the end."""
    said = b""
    for number, line in enumerate(lines):
        when = BEGIN + timedelta(microseconds=37_500 * number)
        text = f"{when:%Y-%m-%dT%H:%M:%S.%f}".rstrip("0").rstrip(".")
        said += f"{text}Z {line}\n".encode()
    return said


@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8")), max_size=60),
    cut=st.integers(0, 60),
)
def test_two_reads_give_what_one_gives(lines: list[str], cut: int) -> None:
    cut = min(cut, len(lines))
    whole, last = lines_after(stamped(lines), "", is_over=True)
    assert whole.decode() == "".join(f"{line}\n" for line in lines)
    first, stamp = lines_after(stamped(lines[:cut]), "", is_over=False)
    second, end = lines_after(stamped(lines), stamp, is_over=False)
    assert (first + second, end) == (whole, last)


def test_a_line_without_an_end_waits_until_there_will_be_no_more_of_it() -> None:
    raw = b"2026-11-20T12:00:00Z one\n2026-11-20T12:00:01Z tw"
    assert lines_after(raw, "", is_over=False) == (b"one\n", "2026-11-20T12:00:00Z")
    assert lines_after(raw, "", is_over=True) == (b"one\ntw", "2026-11-20T12:00:01Z")
    assert lines_after(b"", "", is_over=True) == (b"", "")


def test_times_are_compared_as_times() -> None:
    raw = b"2026-11-20T12:00:00.5Z a\n2026-11-20T12:00:00.50001Z b\n2026-11-20T13:00:01+01:00 c\n"
    assert lines_after(raw, "2026-11-20T12:00:00.5Z", is_over=False)[0] == b"b\nc\n"
    assert lines_after(raw, "2026-11-20T12:00:00.50001Z", is_over=False)[0] == b"c\n"
    assert Cursor(offset=1, stamp="2026-11-20T13:00:01.9+01:00").since == "2026-11-20T12:00:01Z"


def test_words_of_the_node_itself_are_shown() -> None:
    raw = b"failed to watch file: no space left on device\n2026-11-20T12:00:00Z a\n"
    assert lines_after(raw, "", is_over=False)[0] == raw[:46] + b"a\n"
