from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from spillway.errors import SpecError, StoreError
from spillway.workloads import baselines, preprocess
from spillway.workloads import dataset as datasets

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.runtime import Session


def preprocess_tiny(session: Session, output: Path) -> None:
    planned = preprocess.plan(session, output=str(output), size="tiny", shards=2, seed=1)
    encoded = [preprocess.encode(session, output=str(output), shard=shard) for shard in planned]
    preprocess.merge(session, output=str(output), shards=encoded)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_running_again_and_elsewhere_gives_the_same_bytes(tmp_path: Path, session: Session) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    preprocess_tiny(session, first)
    written = contents(first)
    assert "manifest.json" in written
    preprocess_tiny(session, first)
    preprocess_tiny(session, second)
    assert contents(first) == written
    assert contents(second) == written


def test_tokens_decode_to_the_documents(tiny_dataset: str) -> None:
    store = datasets.open_folder(tiny_dataset)
    data = datasets.load(tiny_dataset)
    tokenizer = Tokenizer.from_str(store.get("tokenizer.json").decode())
    text = tokenizer.decode(data.train[0].tolist(), skip_special_tokens=True)
    end = tokenizer.token_to_id("<|endoftext|>")
    file = next(file for file in data.manifest.files if file.split == "train")
    assert int((data.train[0] == end).sum()) == file.documents
    assert "def " in text
    assert "\r" not in text


def test_the_manifest_counts_what_is_there(tiny_dataset: str) -> None:
    data = datasets.load(tiny_dataset)
    assert sum(map(len, data.train)) == data.manifest.train_tokens
    assert sum(map(len, data.validation)) == data.manifest.validation_tokens
    assert data.manifest.validation_tokens > 0
    assert 0 < data.manifest.bigram_loss < data.manifest.unigram_loss < math.log(2048)


def test_an_unknown_size_is_refused(session: Session, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="give one of tiny, small"):
        preprocess.plan(session, output=str(tmp_path), size="huge")


def test_a_relative_output_is_refused(session: Session) -> None:
    with pytest.raises(SpecError, match="give an absolute one"):
        preprocess.plan(session, output="data", size="tiny")


def test_an_output_that_is_a_file_is_refused(session: Session, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="move it away"):
        preprocess.plan(session, output=str(tmp_path / "file"), size="tiny")


def test_a_folder_of_another_dataset_is_refused(session: Session, tiny_dataset: str) -> None:
    with pytest.raises(SpecError, match="give another output"):
        preprocess.plan(session, output=tiny_dataset, size="tiny", shards=3, seed=1)


def test_encoding_before_planning_is_refused(session: Session, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="run plan with this output first"):
        preprocess.encode(session, output=str(tmp_path), shard={})


def test_a_shard_of_another_dataset_is_refused(
    session: Session, tmp_path: Path, tiny_dataset: str
) -> None:
    other = preprocess.plan(session, output=str(tmp_path / "x"), size="tiny", shards=3, seed=1)
    with pytest.raises(SpecError, match="give a shard that plan returned"):
        preprocess.encode(session, output=tiny_dataset, shard=other[0])


def test_a_shard_that_is_none_is_refused(session: Session, tiny_dataset: str) -> None:
    with pytest.raises(SpecError, match="index"):
        preprocess.encode(session, output=tiny_dataset, shard={"dataset": "x"})


@pytest.fixture
def encoded(session: Session, tmp_path: Path) -> tuple[str, list[dict[str, object]]]:
    output = str(tmp_path / "data")
    planned = preprocess.plan(session, output=output, size="tiny", shards=2)
    return output, [preprocess.encode(session, output=output, shard=shard) for shard in planned]


@pytest.mark.parametrize("chosen", [[0], [0, 0], [0, 1, 1], []])
def test_merging_wants_each_shard_once(
    session: Session, encoded: tuple[str, list[dict[str, object]]], chosen: list[int]
) -> None:
    output, shards = encoded
    with pytest.raises(SpecError, match="for each of them, once"):
        preprocess.merge(session, output=output, shards=[shards[index] for index in chosen])
    assert datasets.open_folder(output).get("manifest.json") is None


def test_merging_finds_a_changed_file(
    session: Session, tmp_path: Path, encoded: tuple[str, list[dict[str, object]]]
) -> None:
    output, shards = encoded
    file = tmp_path / "data" / "tokens" / "00001-train.arrow"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(SpecError, match=r"00001-train.arrow .* is not what was written"):
        preprocess.merge(session, output=output, shards=shards)


def test_a_dataset_without_manifest_is_refused(
    encoded: tuple[str, list[dict[str, object]]],
) -> None:
    with pytest.raises(SpecError, match="run the preprocessing first"):
        datasets.load(encoded[0])


streams = st.lists(st.integers(0, 4), min_size=2, max_size=40)


@given(streams, streams)
def test_the_baselines_equal_a_plain_count(train: list[int], validation: list[int]) -> None:
    pairs = [
        baselines.count_pairs([np.array(stream, dtype=np.uint16)], 5)
        for stream in (train, validation)
    ]
    seen = train[1:]
    share = {token: (seen.count(token) + 1) / (len(seen) + 5) for token in range(5)}
    unigram = -sum(math.log(share[token]) for token in validation[1:]) / (len(validation) - 1)
    assert baselines.unigram_loss(*pairs) == pytest.approx(unigram)

    follows = list(itertools.pairwise(train))
    bigram = 0.0
    for before, after in itertools.pairwise(validation):
        count = follows.count((before, after)) + 100 * share[after]
        bigram -= math.log(count / (train[:-1].count(before) + 100))
    assert baselines.bigram_loss(*pairs) == pytest.approx(bigram / (len(validation) - 1))
