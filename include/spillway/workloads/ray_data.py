"""Texts to tokens with Ray Data, for a corpus that keeps a cluster busy; on one machine `preprocess` itself is quicker.

It joins the Ray that `RAY_ADDRESS` names, such as that of a task with launcher `ray`, and starts one of its own where there is
none. Rows may come back in any order, and are put back into their own, so that the tokens are the same bit for bit.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spillway.runtime import Session
    from spillway.workloads.batches import Tokens

_OBJECT_STORE_BYTES: Final = 200_000_000
_BATCH: Final = 64
_LONGEST_TEMPORARY_FOLDER: Final = 30
"""Ray adds some 70 characters for the sockets in it, whose paths may have 107."""
_SETTINGS: Final = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what becomes the default; without it Ray warns
    "RAY_USAGE_STATS_ENABLED": "0",
}


def encode_texts(
    session: Session, tokenizer: Tokenizer, texts: Sequence[str], *, end: int
) -> list[Tokens]:
    """Return the tokens of each text, each followed by `end`."""
    with _ray():
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
def _ray() -> Iterator[None]:
    """Use the Ray that is there; start one and end it where there is none."""
    if ray.is_initialized():
        yield
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        if "RAY_ADDRESS" in os.environ:
            ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
            yield
            return
        with tempfile.TemporaryDirectory(
            prefix="ray-", dir=_short_folder(), ignore_cleanup_errors=True
        ) as folder:
            ray.init(address="local", **_own(folder))
            yield
    finally:
        ray.shutdown()


def _short_folder() -> str | None:
    """Return where to make a folder whose sockets have names that the system allows; None for the usual place."""
    if len(tempfile.gettempdir()) <= _LONGEST_TEMPORARY_FOLDER:
        return None
    return "/tmp"  # noqa: S108  # the folder made in it is nobody else's


def _own(folder: str) -> dict[str, Any]:
    # A token of its own, or Ray would keep one in the home folder.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return {
        "num_cpus": len(os.sched_getaffinity(0)),
        "num_gpus": 0,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "log_to_driver": False,
        "_temp_dir": folder,
    }
