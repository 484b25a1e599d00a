"""A dataset as it lies in its folder: what each object is called, what the manifest says, how tokens are read.

plan.json                        the text shards, written by `plan`
tokenizer.json                   of the tokenizers library
documents/00000.parquet          path, split, text
tokens/00000-train.arrow         path, tokens; one row a document, memory-mapped while training
manifest.json                    written last: the dataset exists once this does
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from spillway.checkpoints import FolderStore, ObjectStore, open_store
from spillway.errors import SpecError, StoreError
from spillway.model import codec
from spillway.workloads.batches import Tokens  # a dataclass resolves it

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

PLAN = "plan.json"
TOKENIZER = "tokenizer.json"
MANIFEST = "manifest.json"
TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION)
TOKEN_SCHEMA = pa.schema({"path": pa.string(), "tokens": pa.list_(pa.uint16())})


@dataclass(frozen=True, slots=True, kw_only=True)
class TextShard:
    """The documents that one call of `encode` turns into tokens.

    Attributes:
        dataset: Id of the dataset it belongs to.
        size: Bytes of text.
        checksum: `algorithm:hex` over the object at `path`.
    """

    dataset: str
    index: int
    path: str
    documents: int
    size: int
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFile:
    """The tokens of one shard's documents of one split."""

    split: str
    path: str
    documents: int
    tokens: int
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShard:
    """What one call of `encode` wrote."""

    dataset: str
    index: int
    files: tuple[TokenFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a dataset will be.

    Attributes:
        dataset: Id: a digest of the documents and of everything that decides what becomes of them.
        vocabulary: Number of different tokens.
        copies: Documents left out because they repeat another.
        tokenizer_checksum: `algorithm:hex`.
    """

    dataset: str
    vocabulary: int
    copies: int
    tokenizer_checksum: str
    shards: tuple[TextShard, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest:
    """What a dataset is.

    Attributes:
        unigram_loss: Nats a validation token costs under the training frequencies.
        bigram_loss: The same, knowing the token before.
    """

    dataset: str
    vocabulary: int
    tokenizer_checksum: str
    documents: int
    train_tokens: int
    validation_tokens: int
    unigram_loss: float
    bigram_loss: float
    files: tuple[TokenFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset ready to be learned: its manifest, and its tokens by file."""

    manifest: DatasetManifest
    train: tuple[Tokens, ...]
    validation: tuple[Tokens, ...]


def open_folder(output: str) -> ObjectStore:
    """Return the store at `output`, an absolute path or a URL.

    Raises:
        SpecError: It is neither.
    """
    if "://" not in output:
        if not Path(output).is_absolute():
            raise SpecError(
                f"{output!r} is a relative path: a lease has its own folder, give an absolute one"
            )
        return FolderStore(Path(output))
    try:
        return open_store(output)
    except StoreError as error:
        raise SpecError(str(error)) from error


def load(folder: str) -> Dataset:
    """Return the dataset in `folder`, its tokens memory-mapped where the folder is on this machine.

    Raises:
        SpecError: There is no whole dataset; the message says how to make one.
    """
    store = open_folder(folder)
    manifest = read_value(store, MANIFEST, DatasetManifest, "run the preprocessing first")
    by_split = {
        split: tuple(read_tokens(store, file) for file in manifest.files if file.split == split)
        for split in SPLITS
    }
    return Dataset(manifest=manifest, train=by_split[TRAIN], validation=by_split[VALIDATION])


def read_value(store: ObjectStore, path: str, kind: type[T], remedy: str) -> T:
    """Return the value kept as JSON at `path`.

    Raises:
        SpecError: It is not there, or is something else.
    """
    data = store.get(path)
    if data is None:
        raise SpecError(f"no {path} in {store}: {remedy}")
    return codec.decode_json(data, kind)


def read_tokens(store: ObjectStore, file: TokenFile) -> Tokens:
    """Return the tokens of `file`, document after document, without copying where it is a local file.

    Raises:
        SpecError: The file is missing, or holds another number of tokens.
    """
    with pa.ipc.open_file(_source(store, file.path)) as reader:
        tokens: Tokens = reader.get_batch(0).column("tokens").values.to_numpy(zero_copy_only=True)
    if len(tokens) != file.tokens:
        raise SpecError(
            f"{file.path} in {store} has {len(tokens)} tokens and not {file.tokens}: {REPEAT}"
        )
    return tokens


REPEAT = "remove the folder and run the preprocessing again"


def checksum(data: bytes) -> str:
    """Return `sha256:` and the digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def checked(store: ObjectStore, path: str, expected: str) -> bytes:
    """Return the object at `path` after comparing it with its checksum.

    Raises:
        SpecError: It is missing or not what was written.
    """
    data = store.get(path)
    if data is None:
        raise SpecError(f"no {path} in {store}: {REPEAT}")
    if checksum(data) != expected:
        raise SpecError(f"{path} in {store} is not what was written there: {REPEAT}")
    return data


def put_once(store: ObjectStore, path: str, data: bytes) -> None:
    """Write the object unless exactly it is there, so that repeating does not disturb those who read it."""
    if store.get(path) != data:
        store.put(path, data)


def token_file(paths: Sequence[str], documents: Sequence[Tokens]) -> bytes:
    """Return an Arrow file with the tokens of each document; one record batch, so that they lie one after the other."""
    offsets = np.cumsum([0, *(len(tokens) for tokens in documents)], dtype=np.int32)
    values = np.concatenate(documents) if documents else np.empty(0, dtype=np.uint16)
    tokens = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=pa.uint16()))
    batch = pa.record_batch([pa.array(paths, type=pa.string()), tokens], schema=TOKEN_SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, TOKEN_SCHEMA) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _source(store: ObjectStore, path: str) -> pa.NativeFile:
    if isinstance(store, FolderStore) and (store.root / path).is_file():
        return pa.memory_map(str(store.root / path))
    data = store.get(path)
    if data is None:
        raise SpecError(f"no {path} in {store}: {REPEAT}")
    return pa.BufferReader(data)
