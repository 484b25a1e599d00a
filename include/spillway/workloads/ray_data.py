"""Texts to tokens with Ray Data, for a corpus that keeps a cluster busy; on one machine `preprocess` itself is quicker.

It joins the Ray of a task with launcher `ray`, and starts one of its own otherwise. Rows may come back in any order, and are put
back into their own, so that the tokens are the same bit for bit.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data
from tokenizers import Tokenizer

from spillway.workloads import own_ray

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from spillway.runtime import Session
    from spillway.workloads.batches import Tokens

_OBJECT_STORE_BYTES: Final = 200_000_000
_BATCH: Final = 64


def encode_texts(
    session: Session, tokenizer: Tokenizer, texts: Sequence[str], *, end: int
) -> list[Tokens]:
    """Return the tokens of each text, each followed by `end`."""
    with _ray(own_ray.spanning_address(session.submission)):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = pa.table({"row": range(len(texts)), "text": list(texts)})
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
        encoded = (
            ray.data.from_arrow(rows)
            .repartition(max(1, min(4 * cpus, -(-len(texts) // _BATCH))))
            .map_batches(
                _Encoder,
                fn_constructor_args=(tokenizer.to_str(), end),
                batch_format="pyarrow",
                batch_size=_BATCH,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=cpus),
            )
        )
        found: dict[int, Tokens] = {}
        batches = cast("Iterator[pa.Table]", encoded.iter_batches(batch_format="pyarrow"))
        for batch in batches:
            for row, tokens in zip(batch["row"].to_pylist(), batch["tokens"], strict=True):
                found[row] = tokens.values.to_numpy().astype(np.uint16)
            session.progress(len(found), len(texts))
    return [found[row] for row in range(len(texts))]


class _Encoder:
    """Made once in each of Ray's workers: reading a tokenizer takes longer than a batch."""

    def __init__(self, tokenizer: str, end: int) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._end = end

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows with tokens for their texts."""
        encoded = self._tokenizer.encode_batch_fast(batch["text"].to_pylist())
        tokens = [[*each.ids, self._end] for each in encoded]
        return pa.table({"row": batch["row"], "tokens": pa.array(tokens, pa.list_(pa.uint16()))})


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Use the Ray that is there; start one and end it where there is none."""
    if ray.is_initialized():
        yield
        return
    try:
        with _environment(own_ray.environment(joins=address is not None)):
            if address is not None:
                ray.init(address=address, log_to_driver=False)
                yield
                return
            with tempfile.TemporaryDirectory(
                prefix="ray-", dir=own_ray.short_folder(), ignore_cleanup_errors=True
            ) as folder:
                own_ray.start(**_own(folder))
                yield
    finally:
        ray.shutdown()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    _replace(variables)
    try:
        yield
    finally:
        _replace(before)


def _replace(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _own(folder: str) -> dict[str, Any]:
    return {
        "num_cpus": len(os.sched_getaffinity(0)),
        "num_gpus": 0,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "log_to_driver": False,
        "_temp_dir": folder,
    }
