"""Preprocessing in three calls: `plan` once, `encode` for each shard it returns, `merge` once.

Each may run on another machine, and any may run again: the same arguments write the same bytes, so repeating does no harm.
Nothing but the output folder is shared between them.
"""

from __future__ import annotations

import io
import json
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from tokenizers import Tokenizer

from spillway.errors import SpecError
from spillway.model import codec
from spillway.workloads import baselines, corpus, dataset
from spillway.workloads.dataset import (
    DatasetManifest,
    Plan,
    TextShard,
    TokenFile,
    TokenShard,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    from spillway.checkpoints import ObjectStore
    from spillway.runtime import Session
    from spillway.workloads.batches import Tokens
    from spillway.workloads.corpus import Document

SIZES: Mapping[str, int | None] = MappingProxyType(
    {"tiny": 300_000, "small": 3_000_000, "medium": 6_000_000, "full": None}
)
"""Bytes of text to take; None for all there is, about 12 million."""


class Engine(StrEnum):
    """What turns texts into tokens."""

    EMBEDDED = "embedded"
    RAY = "ray"


_FORMAT = 1
_VOCABULARY = 2048
_TOKENIZER_BYTES = 1_000_000
_END = "<|endoftext|>"
_BATCH = 64


def plan(
    session: Session, *, output: str, size: str = "small", shards: int = 2, seed: int = 0
) -> JsonValue:
    """Choose the documents, train the tokenizer, write both to `output` and return the shards to `encode`.

    Raises:
        SpecError: Unknown size, more shards than documents, or `output` holds another dataset.
        StoreError: `output` cannot be written.
    """
    if size not in SIZES:
        raise SpecError(f"size {size!r} is unknown: give one of {', '.join(SIZES)}")
    folder = corpus.standard_library()
    paths = corpus.shuffled(corpus.find(folder), seed)
    read = list(corpus.read(folder, paths))
    originals = list(corpus.without_copies(read))
    chosen = corpus.up_to(originals, SIZES[size])
    return plan_documents(
        session, chosen, output=output, shards=shards, copies=len(read) - len(originals)
    )


def plan_documents(
    session: Session, documents: Sequence[Document], *, output: str, shards: int, copies: int = 0
) -> JsonValue:
    """Do what `plan` does, with documents of your own, the ones to learn the tokenizer from first."""
    parts = corpus.split_evenly(documents, shards)
    store = dataset.open_folder(output)
    validation = corpus.choose_validation(documents)
    session.progress(1, 3, documents=len(documents))

    tokenizer = _train_tokenizer([each for each in documents if each.digest not in validation])
    session.progress(2, 3)

    tables = [_text_table(part, validation) for part in parts]
    plan_ = _describe(parts, tables, tokenizer, copies=copies)
    _claim(store, plan_)
    dataset.put_once(store, dataset.TOKENIZER, tokenizer)
    for shard, table in zip(plan_.shards, tables, strict=True):
        dataset.put_once(store, shard.path, table)
    session.progress(3, 3)
    return [codec.encode(shard) for shard in plan_.shards]


def encode(
    session: Session,
    *,
    output: str,
    shard: Mapping[str, JsonValue],
    engine: str = Engine.EMBEDDED,
) -> JsonValue:
    """Turn the documents of one `shard` of `plan` into tokens; return what was written, for `merge`.

    Args:
        session: The attempt it runs in.
        output: Folder of the dataset.
        shard: One of those that `plan` returned.
        engine: `embedded`, or `ray` for Ray Data, which is worth it where a cluster is there. Both write the same bytes.

    Raises:
        SpecError: The shard is not one that was planned in `output`, what `plan` wrote was changed, or the engine is unknown.
        StoreError: `output` cannot be written.
    """
    encode_texts = _encoder(engine)
    store = dataset.open_folder(output)
    plan_ = _planned(store)
    wanted = codec.decode(shard, TextShard)
    if wanted not in plan_.shards:
        raise SpecError(
            f"shard {wanted.index} of dataset {wanted.dataset} is not of {plan_.dataset}, which is"
            f" planned in {output}: give a shard that plan returned for this output"
        )
    tokenizer = Tokenizer.from_str(
        dataset.checked(store, dataset.TOKENIZER, plan_.tokenizer_checksum).decode()
    )
    text = pq.read_table(pa.BufferReader(dataset.checked(store, wanted.path, wanted.checksum)))
    end = tokenizer.token_to_id(_END)
    tokens = encode_texts(session, tokenizer, text.column("text").to_pylist(), end=end)
    splits = text.column("split").to_pylist()
    paths = text.column("path").to_pylist()
    files = []
    for split in dataset.SPLITS:
        rows = [row for row, its_split in enumerate(splits) if its_split == split]
        data = dataset.token_file([paths[row] for row in rows], [tokens[row] for row in rows])
        file = TokenFile(
            split=split,
            path=f"tokens/{wanted.index:05d}-{split}.arrow",
            documents=len(rows),
            tokens=sum(len(tokens[row]) for row in rows),
            checksum=dataset.checksum(data),
        )
        dataset.put_once(store, file.path, data)
        files.append(file)
    return codec.encode(TokenShard(dataset=wanted.dataset, index=wanted.index, files=tuple(files)))


def merge(session: Session, *, output: str, shards: Sequence[Mapping[str, JsonValue]]) -> JsonValue:
    """Check every shard, measure what a model has to beat and write the manifest; return a summary with the `dataset` path.

    Raises:
        SpecError: A shard is missing, of another dataset, or not what `encode` wrote.
        StoreError: `output` cannot be written.
    """
    store = dataset.open_folder(output)
    plan_ = _planned(store)
    encoded = _complete(plan_, [codec.decode(shard, TokenShard) for shard in shards], output)
    files = [file for shard in encoded for file in shard.files]
    for number, file in enumerate(files, start=1):
        dataset.checked(store, file.path, file.checksum)
        session.progress(number, len(files) + 1)

    pairs = {
        split: baselines.count_pairs(
            (dataset.read_tokens(store, file) for file in files if file.split == split),
            plan_.vocabulary,
        )
        for split in dataset.SPLITS
    }
    tokens = {
        split: sum(file.tokens for file in files if file.split == split) for split in dataset.SPLITS
    }
    manifest = DatasetManifest(
        dataset=plan_.dataset,
        vocabulary=plan_.vocabulary,
        tokenizer_checksum=plan_.tokenizer_checksum,
        documents=sum(file.documents for file in files),
        train_tokens=tokens[dataset.TRAIN],
        validation_tokens=tokens[dataset.VALIDATION],
        unigram_loss=baselines.unigram_loss(pairs[dataset.TRAIN], pairs[dataset.VALIDATION]),
        bigram_loss=baselines.bigram_loss(pairs[dataset.TRAIN], pairs[dataset.VALIDATION]),
        files=tuple(files),
    )
    dataset.put_once(store, dataset.MANIFEST, codec.encode_json(manifest))
    session.progress(len(files) + 1, len(files) + 1)
    return _summary(manifest, output)


def _train_tokenizer(documents: Sequence[Document]) -> bytes:
    """Return a byte-level BPE as JSON, learned from the first million bytes of `documents`."""
    sample = corpus.up_to(documents, _TOKENIZER_BYTES)
    tokenizer = Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([document.text for document in sample], trainer)
    text: str = tokenizer.to_str()
    return text.encode()


def _text_table(documents: Sequence[Document], validation: frozenset[str]) -> bytes:
    splits = [
        dataset.VALIDATION if document.digest in validation else dataset.TRAIN
        for document in documents
    ]
    table = pa.table(
        {
            "path": [document.path for document in documents],
            "split": splits,
            "text": [document.text for document in documents],
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _describe(
    parts: Sequence[Sequence[Document]], tables: Sequence[bytes], tokenizer: bytes, *, copies: int
) -> Plan:
    identity = {
        "format": _FORMAT,
        "tokenizer": dataset.checksum(tokenizer),
        "shards": [[(each.path, each.digest) for each in part] for part in parts],
    }
    id_ = dataset.checksum(json.dumps(identity).encode()).removeprefix("sha256:")[:16]
    return Plan(
        dataset=id_,
        vocabulary=Tokenizer.from_str(tokenizer.decode()).get_vocab_size(),
        copies=copies,
        tokenizer_checksum=dataset.checksum(tokenizer),
        shards=tuple(
            TextShard(
                dataset=id_,
                index=index,
                path=f"documents/{index:05d}.parquet",
                documents=len(part),
                size=sum(document.size for document in part),
                checksum=dataset.checksum(table),
            )
            for index, (part, table) in enumerate(zip(parts, tables, strict=True))
        ),
    )


def _claim(store: ObjectStore, plan_: Plan) -> None:
    """Write the plan, which makes the folder this dataset's; refuse a folder that is another's."""
    data = codec.encode_json(plan_)
    if store.create(dataset.PLAN, data) or store.get(dataset.PLAN) == data:
        return
    there = _planned(store).dataset
    raise SpecError(
        f"{store} holds dataset {there} and not {plan_.dataset}: "
        "give another output, or remove the folder if nobody needs it"
    )


def _planned(store: ObjectStore) -> Plan:
    return dataset.read_value(store, dataset.PLAN, Plan, "run plan with this output first")


def _encoder(engine: str) -> Callable[..., list[Tokens]]:
    if engine == Engine.EMBEDDED:
        return _encode_texts
    if engine != Engine.RAY:
        raise SpecError(f"engine {engine!r} is unknown: give {' or '.join(Engine)}")
    try:
        from spillway.workloads.ray_data import encode_texts
    except ModuleNotFoundError as error:
        raise SpecError(
            f"engine {engine} needs {error.name}: pip install 'ray[data]' where it runs, or give {Engine.EMBEDDED}"
        ) from error
    return encode_texts


def _encode_texts(
    session: Session, tokenizer: Tokenizer, texts: Sequence[str], *, end: int
) -> list[Tokens]:
    """Return the tokens of each text, each with the token that ends a document."""
    encoded: list[Tokens] = []
    for start in range(0, len(texts), _BATCH):
        batch = tokenizer.encode_batch_fast(texts[start : start + _BATCH])
        encoded += [np.array([*each.ids, end], dtype=np.uint16) for each in batch]
        session.progress(len(encoded), len(texts))
    return encoded


def _complete(plan_: Plan, shards: Sequence[TokenShard], output: str) -> list[TokenShard]:
    """Return the shards by index, after seeing that each planned one is there exactly once and none besides."""
    for shard in shards:
        if shard.dataset != plan_.dataset:
            raise SpecError(
                f"shard {shard.index} is of dataset {shard.dataset}, and {output} is for"
                f" {plan_.dataset}: give what encode returned for this output"
            )
    given = sorted(shard.index for shard in shards)
    planned = [shard.index for shard in plan_.shards]
    if given != planned:
        raise SpecError(
            f"shards {given} were given and {planned} are planned in {output}: "
            "give what encode returned for each of them, once"
        )
    return sorted(shards, key=lambda shard: shard.index)


def _summary(manifest: DatasetManifest, output: str) -> JsonValue:
    return {
        "dataset": output,
        "id": manifest.dataset,
        "documents": manifest.documents,
        "vocabulary": manifest.vocabulary,
        "train_tokens": manifest.train_tokens,
        "validation_tokens": manifest.validation_tokens,
        "unigram_loss": round(manifest.unigram_loss, 4),
        "bigram_loss": round(manifest.bigram_loss, 4),
    }
