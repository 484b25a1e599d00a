from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import SpecError
from spillway.workloads import corpus
from spillway.workloads.corpus import Document

if TYPE_CHECKING:
    from pathlib import Path

texts = st.text(st.characters(codec="utf-8"), max_size=200)
documents = st.lists(texts, min_size=1, max_size=20).map(
    lambda contents: [Document(path=f"{i}.py", text=text) for i, text in enumerate(contents)]
)


@given(texts)
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = corpus.normalise(text)
    assert corpus.normalise(once) == once


@given(texts)
def test_normal_text_has_line_feeds_only_and_no_blanks_before_them(text: str) -> None:
    normal = corpus.normalise(text)
    assert "\r" not in normal
    assert not any(line.endswith((" ", "\t")) for line in normal.split("\n"))


def test_line_ends_blanks_and_composition_make_no_difference() -> None:
    assert corpus.normalise("e\u0301  \r\nx\t\ry") == "\u00e9\nx\ny\n"


def test_source_is_read_in_the_encoding_it_declares() -> None:
    assert corpus.decode(b"# coding: latin-1\n# \xe9") == "# coding: latin-1\n# \u00e9"


def test_files_that_are_not_text_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_bytes(b"x = 1\n")
    (tmp_path / "bad.py").write_bytes(b"# \xff\xfe\n")
    read = list(corpus.read(tmp_path, corpus.find(tmp_path)))
    assert [document.path for document in read] == ["good.py"]


def test_tests_and_installed_packages_are_left_out(tmp_path: Path) -> None:
    for name in ("a.py", "test/b.py", "site-packages/c.py", "json/tests/d.py", "json/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    assert corpus.find(tmp_path) == ["a.py", "json/e.py"]


def test_a_folder_without_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="install the standard library"):
        corpus.find(tmp_path)


@given(documents)
def test_a_copy_is_dropped_and_the_first_is_kept(originals: list[Document]) -> None:
    kept = list(corpus.without_copies(originals))
    spaced = [Document(path=f"copy/{each.path}", text=f"\n {each.text} ") for each in originals]
    assert list(corpus.without_copies([*originals, *spaced])) == kept
    assert len({" ".join(each.text.split()) for each in kept}) == len(kept)


@given(st.lists(st.text(max_size=5), unique=True), st.integers(0, 3), st.randoms())
def test_the_order_depends_on_paths_and_seed_alone(
    paths: list[str], seed: int, random: object
) -> None:
    shuffled = corpus.shuffled(paths, seed)
    random.shuffle(paths)  # type: ignore[attr-defined]
    assert corpus.shuffled(paths, seed) == shuffled
    assert sorted(shuffled) == sorted(paths)


@given(documents, st.data())
def test_shards_are_disjoint_complete_and_never_empty(
    given_documents: list[Document], data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(given_documents)))
    shards = corpus.split_evenly(given_documents, count)
    assert len(shards) == count
    assert all(shards)
    together = [document for shard in shards for document in shard]
    assert sorted(together, key=lambda each: each.path) == sorted(
        given_documents, key=lambda each: each.path
    )


@given(documents, st.integers(1, 6))
def test_shards_differ_by_one_document_at_most(given_documents: list[Document], count: int) -> None:
    if count > len(given_documents):
        return
    sizes = [
        sum(each.size for each in shard) for shard in corpus.split_evenly(given_documents, count)
    ]
    assert max(sizes) - min(sizes) <= max(each.size for each in given_documents)


def test_more_shards_than_documents_are_refused() -> None:
    with pytest.raises(SpecError, match="give shards from 1 to 1"):
        corpus.split_evenly([Document(path="a.py", text="x")], 2)


@given(documents)
def test_there_is_always_something_to_validate_on(given_documents: list[Document]) -> None:
    chosen = corpus.choose_validation(given_documents)
    assert chosen
    assert chosen <= {each.digest for each in given_documents}


@given(documents, st.integers(0, 500))
def test_the_budget_of_bytes_is_kept_but_for_the_first(
    given_documents: list[Document], max_bytes: int
) -> None:
    kept = corpus.up_to(given_documents, max_bytes)
    assert kept == given_documents[: len(kept)]
    assert len(kept) == 1 or sum(each.size for each in kept) <= max_bytes
    assert corpus.up_to(given_documents, None) == given_documents
